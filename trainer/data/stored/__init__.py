"""Keep pictures in their stored form, and cut the images of each batch out of them.

What a picture *is* for a run is a `form`: its pixels at their own size or shrunk once, or a JPEG of
them. Where that is kept changes no bit: in memory or in `slots` of one file, as `keeping` chooses.
`pictures` decodes, cuts and resizes a batch in threads.
"""
