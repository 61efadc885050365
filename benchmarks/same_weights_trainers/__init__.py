"""Do the trainings that same_weights.py compares, as their trainer's documentation shows them.

`python -m same_weights_trainers NAME TRAININGS` does those of one trainer, in turn. All have the
same first weights, images, global batch, Adam at a constant 1e-3 and float32, and are seeded by
their own means. If there is a checkpoint in the folder, they resume.
"""
