"""Turn files into batches: sources, pictures, split, scaling, order, augmentation.

`sources/` reads the files of data.name, `pictures/` decodes picture files, `loading` makes a data
set of them, `sampling` chooses the samples of a step, `batches` fetches its images, and `augment/`
transforms them.
It imports `base`, `config` and `ranks`.
"""
