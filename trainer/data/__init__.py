"""From files to batches: sources, pictures, split, scaling, order, augmentation.

`sources/` reads what data.name names, `pictures/` decodes picture files, `loading` makes sets of
them, `sampling` draws the order of an epoch, `batches` fetches a step's images, `augment/`
transforms them.
It imports `base`, `config` and `ranks`.
"""
