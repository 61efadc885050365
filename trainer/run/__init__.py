"""A run and its folder: opened, trained, recorded, reported.

`train` does a run from its configuration to its results; `session` owns the folder. It imports
`training` and the rooms below.
"""
