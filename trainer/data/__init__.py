"""Data sets: one file a source, then split and scaling."""
