"""One module or package a command: `add_arguments(parser)`, then `run(arguments)`."""
