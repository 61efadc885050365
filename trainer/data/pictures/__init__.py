"""Decode picture files: PNG, JPEG and others, of any size and depth.

A picture is a file, an image is an array of pixels. `decoding` makes images of pictures, `formats`
and `high_bit_depth` are what it needs of Pillow, `names` tells which files are pictures, `parallel`
reads many of them.
"""
