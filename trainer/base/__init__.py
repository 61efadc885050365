"""Helpers that every other room may use.

Errors, files and tensors on the disk, random streams, how numbers round, the terminal, timeouts.
It imports nothing else of `trainer`.
"""
