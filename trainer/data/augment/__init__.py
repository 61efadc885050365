"""Transform training images at random: pure functions of seed, epoch and sample.

`transforms`, `colours`, `operations` and `mixup` say what happens to pixels; `short_form` and
`list_transforms` draw the parameters for a run, as `policy` asks them to.
"""
