"""Transform training images at random: pure functions of seed, epoch and sample.

`transforms` and `mixup` say what happens to pixels, `policy` draws the parameters for a run.
"""
