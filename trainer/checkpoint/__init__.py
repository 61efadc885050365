"""Checkpoints as files: folders of safetensors and JSON that are whole or not there.

`writing` makes them, `reading` opens and checks them, `sharing` sends one from rank 0 to all. It
knows files and tensors by their names; `training/snapshot` decides what of a run they are. Of
`config` it imports its own section, `checkpoint`. It imports `base`, `config` and `ranks`.
"""
