"""Published data sets: their files and checksums, their classes, and how each is read.

`published` says what is known of a set and of a file of one. A module for each kind of file has
the sets that come in it: arrays in `idx_sets`, `cifar`, `svhn` and `medmnist`, photographs in
`picture_folders` and `picture_lists`. `registry` has them all by name, `verification` compares
files with their checksums.
"""
