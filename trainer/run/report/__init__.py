"""Pages and pictures about runs, made from their files. None may cost what it is about."""
