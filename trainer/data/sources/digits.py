"""Read the 8 x 8 digits that come with scikit-learn, without files or a network."""

from __future__ import annotations

import numpy as np

from trainer.data.sources.source_data import LabelledImages, SourceData

_TEST_SIZE = 360
# The values go from 0 to 16; 15 x 16 = 240 uses most of a byte and stays exact.
_SPREAD = 15


def read() -> SourceData:
    """Return 1,437 training and 360 test images of one channel, in scikit-learn's order."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = (digits.images * _SPREAD).astype(np.uint8)[:, None]
    labels = digits.target
    name = "scikit-learn's digits"
    return SourceData(
        train=LabelledImages(images[:-_TEST_SIZE], labels[:-_TEST_SIZE], name, name),
        test=LabelledImages(images[-_TEST_SIZE:], labels[-_TEST_SIZE:], name, name),
        class_names=tuple("0123456789"),
        origin=name,
    )
