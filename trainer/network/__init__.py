"""The network of a run: built, filled with weights, and tried before the first step.

- `creation` builds any network by its name, `new_model` that of a run, with `memory_layout`
  and `starting_weights`. Our own networks are in the package `models`.
- `stored_network` builds that of a model.safetensors again, by what its `model_metadata` say.
- `model_state` says what a model's state is: what a checkpoint, an average and a comparison see.
- `pass_effects` finds out what passes do to it, and `buffers_in_passes` repeats that in a step and
  an evaluation so that the result is the same on any number of processes.
- `trial/` finds out whether a network gives equal bits on other processes and after a resume.

It imports `data` and the rooms below.
"""
