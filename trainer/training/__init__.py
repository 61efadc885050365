"""Train and judge a network: the loop, the step, the sum over micro-batches, what is validated.

`engine` is the loop, `step` one optimiser step, `reduction` the arithmetic of lockstep. It gets
built objects and reads no YAML. It imports the rooms below, down to `base`.
"""
