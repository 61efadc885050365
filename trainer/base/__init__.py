"""What any other room may use, and what knows none of them.

Errors, files and tensors on the disk, random streams, how numbers round, the terminal. It imports
nothing of `trainer`.
"""
