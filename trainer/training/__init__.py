"""Train and test a network: the loop, the step, the sum over micro-batches, the validation.

`engine` is the loop, `step` one optimiser step, `reduction` the fixed-order sum, `weight_selection`
validates and chooses the weights, `saving` connects all of it with the checkpoints. The room gets
built objects and reads no YAML. It imports the rooms below, down to `base`.
"""
