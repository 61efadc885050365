"""Decode picture files: PNG, JPEG and others, of any size and depth."""
