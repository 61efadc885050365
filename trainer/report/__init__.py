"""Pictures and pages of runs, made from files alone."""
