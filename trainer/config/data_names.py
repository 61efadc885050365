"""The names of data.name: formats of your own files, and published sets."""

from __future__ import annotations

from typing import Literal

PictureSetName = Literal[
    "imagenette", "imagenette_320", "imagenette_160",
    "flowers102", "oxford_pets", "food101", "eurosat",
]  # fmt: skip
DataName = Literal[
    "fashion_mnist", "mnist", "idx", "npy", "digits", "folder", "table",
    "kmnist", "qmnist",
    "emnist", "emnist_letters", "emnist_digits", "emnist_bymerge", "emnist_byclass",
    "cifar10", "cifar100", "svhn",
    "pathmnist", "dermamnist", "octmnist", "pneumoniamnist", "retinamnist", "breastmnist",
    "bloodmnist", "tissuemnist", "organamnist", "organcmnist", "organsmnist", "chestmnist",
    PictureSetName,
]  # fmt: skip
