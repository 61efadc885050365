"""Pages and pictures about runs. One that fails is a warning and never costs the run."""
