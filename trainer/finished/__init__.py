"""Finished runs: read, loaded, recomputed, compared, exported.

It imports `run` and the rooms below.
"""
