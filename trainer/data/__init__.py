"""Data sets: one file a source, then split and scaling."""

from trainer.data.loading import load, prepare
from trainer.data.sets import Dataset, ImageSet, Scaling

__all__ = ["Dataset", "ImageSet", "Scaling", "load", "prepare"]
