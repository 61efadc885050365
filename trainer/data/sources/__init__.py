"""Read the images and labels that data.name names: one module for each format or set.

`reading` chooses the module. A source of picture files only lists them, as `folder` does:
`prepared_pictures` then plans (`picture_plan`) and decodes them once, and remembers what they
contain (`picture_index`) and their pixels (`decoded_cache`).
"""
