"""Read, load, compute again, compare and export finished runs.

It imports `run` and the rooms below.
"""
