"""Write a finished run's model for other programs.

`writing` writes one file, whole and checked, by `worker` in a separate process. The `formats` are
written and opened here only. What is written is one of the `modules`: the network with its scaling,
or with all that is done to a picture before it (`pillow_filter`). `checking` compares what was
written with the run's own answers to its test images, and `record` keeps what it has
found. The file's `description` of itself is in it.
"""
