"""Data sets, as the images flow.

reading         the source that data.name means: known (from download), idx, npy, folder, digits
                or own; each yields what is in source
folder          its files in picture_list, what they are in picture_index and pictures, their
                pixels in decoded
stored          images that are left in their file, of idx, npy and folder
loading         from a source to sets, by split and scaling
"""
