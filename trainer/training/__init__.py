"""Train and test a network: the loop, the step, the sum over micro-batches, the validation.

- `engine` is the loop, `step` one optimiser step, `loss` its loss, with the answers of a `teacher`
  where there is one, `reduction` the fixed-order sum of gradients,
  `optimizers` and `schedules` change the weights, `step_log` has the figures of the steps,
  `optimizers_on_gpus` what takes the place of torch's optimisers there.
- `evaluation` predicts, `features` are what goes into a network's head, `metrics` computes
  figures, `weight_selection` validates and chooses the weights,
  `averaging` and `batch_norm_statistics` average them.
- `run_checkpoints` connects all of it with the checkpoints: `snapshot` is what goes into one,
  `state_digest` its digest at the end of an epoch,
  `resume_checks` says whether one fits, `run_state` where a run is.
- `stopping` makes the ranks stop together, `observer` is what the room above gets to see,
  `per_sample` computes again what a sample did in a step.

The room gets a built network and data set and reads no YAML. It imports the rooms below.
"""
