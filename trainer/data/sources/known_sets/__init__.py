"""Published data sets: their files and checksums, their classes, and how each is read.

`published` says what is known of a set and of a file of one. A module for each kind of file has
the sets that come in it: `idx_sets`, `cifar`, `svhn`, `medmnist`. `registry` has them all by
name, `verification` compares files with their checksums.
"""
