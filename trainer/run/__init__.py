"""A run and its folder: opened, trained, recorded, reported.

`train` does a run from its configuration to its results; `session` owns the folder and the
processes, `recorder` gets every figure and hands it to metrics.jsonl, the screen and `tracking/`,
`final_files` writes the results. It imports `training` and the rooms below.
"""
