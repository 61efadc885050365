"""The commands that the pages show: found, taken by their programs' parsers, and run."""
