"""Turn files into batches: sources, pictures, split, scaling, order, augmentation.

`sources/` reads the files of data.name, `pictures/` decodes picture files, `raw_images` leaves raw
images on the disk. `loading` makes a `dataset` of them with `split` and `scaling`. `sampling` draws
the order of an epoch and divides a batch, `batches` fetches the images of a step, and `augment/`
transforms them. It imports `base`, `config` and `ranks`.
"""
