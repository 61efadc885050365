"""`python -m trainer sweep`."""
