"""A run and its folder: opened, trained, recorded, reported.

`training_run` does a run from its configuration to its results, with the engine of
`engine_builder`. `session` owns the folder (`run_folder`) and the processes. `recorder` gets
every figure and hands it to `metrics_log`, the screen (`console`) and `tracking/`. `final_files`
writes `results` and the `receipt`, `final_report` the page by `report/`. It imports `training` and
the rooms below.
"""
