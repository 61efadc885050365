"""The network of a run: built, filled with weights, its state known, tried before the first step.

- `new_model` builds it, with `memory_layout` and `starting_weights`; the networks themselves are in
  the package `models`.
- `model_state` says what a model's state is: what a checkpoint, an average and a comparison see.
- `pass_effects` finds out what passes do to it, and `buffers_in_passes` does it in a step and an
  evaluation so that the result is the same on any number of processes.
- `trial/` finds out whether a network gives equal bits on other processes and after a resume.

It imports `data` and the rooms below.
"""
