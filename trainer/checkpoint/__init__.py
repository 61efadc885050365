"""Checkpoints as files: folders of safetensors and JSON that are whole or not there.

`writing` makes them, `reading` opens and checks them, `sharing` sends one from rank 0 to all. What
of a run goes into one is decided in `training/snapshot`. It imports `base`, `config` and `ranks`.
"""
