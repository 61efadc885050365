"""Street View House Numbers, single digits of 32 x 32 pixels in MATLAB files."""

from __future__ import annotations

import math

import numpy as np

from trainer.data.raw_images import memory_limit_error
from trainer.data.sources.known_sets.published import ArraySet, Files, Parts, PublishedFile
from trainer.data.sources.source_data import LabelledImages

_FILES = {"train": "train_32x32.mat", "test": "test_32x32.mat"}


def _read(files: Files, limit_bytes: float) -> Parts:
    """Read X, (height, width, channels, n), and y, where the digit 0 has the label 10."""
    from scipy.io import loadmat, whosmat

    parts = {}
    for part, name in _FILES.items():
        path = files[name]
        size_bytes = max(math.prod(shape) for _, shape, _ in whosmat(str(path)))
        if size_bytes > limit_bytes:
            raise memory_limit_error(path, size_bytes, limit_bytes, "are compressed")
        # Numbers only: nothing in such a file is run.
        found = loadmat(str(path), variable_names=["X", "y"])
        parts[part] = LabelledImages(
            images=np.ascontiguousarray(found["X"].transpose(3, 2, 0, 1)),
            labels=found["y"][:, 0].astype(np.int64) % 10,
            images_file=str(path),
            labels_file=str(path),
        )
    return parts


# Netzer and others: Reading Digits in Natural Images with Unsupervised Feature Learning, 2011.
# SHA-256 as in TensorFlow Datasets' list.
SVHN = ArraySet(
    name="svhn",
    class_names=tuple("0123456789"),
    files=(
        PublishedFile(
            _FILES["train"],
            "sha256:435e94d69a87fde4fd4d7f3dd208dfc32cb6ae8af2240d066de1df7508d083b8",
        ),
        PublishedFile(
            _FILES["test"],
            "sha256:cdce80dfb2a2c4c6160906d0bd7c68ec5a99d7ca4831afa54f09182025b6a75b",
        ),
    ),
    mirrors=("http://ufldl.stanford.edu/housenumbers/",),
    read=_read,
)
