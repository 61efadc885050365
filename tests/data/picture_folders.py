"""Make folders of real picture files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from trainer.config.schema import DataConfig
from trainer.data.dataset import Dataset
from trainer.data.loading import load
from trainer.data.sources import reading


def write_pictures(
    root: Path,
    parts: Sequence[str] = ("train", "test"),
    classes: Sequence[str] = ("cat", "dog"),
    count: int = 10,
    size: tuple[int, int] = (12, 10),
    channels: int = 1,
) -> Path:
    """Write `count` different PNG files of each class and part; height and width are `size`."""
    random = np.random.default_rng(0)
    for part in parts:
        for name in classes:
            folder = root / part / name
            folder.mkdir(parents=True)
            for number in range(count):
                shape = (*size, 3) if channels == 3 else size
                pixels = random.integers(0, 256, shape, dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{number:03}.png")
    return root


def write_digits(
    root: Path,
    train: int = 400,
    test: int = 200,
    wrong: Sequence[int] = (),
    wrong_in_train: Sequence[int] = (),
) -> Path:
    """Write scikit-learn's digits as PNG files, the first in order.

    Args:
        wrong: numbers of test pictures that go into the folder of the next class.
        wrong_in_train: likewise of training pictures.
    """
    from sklearn.datasets import load_digits

    digits = load_digits()
    for number in range(train + test):
        part, place = ("train", number) if number < train else ("test", number - train)
        label = int(digits.target[number])
        if place in (wrong if part == "test" else wrong_in_train):
            label = (label + 1) % 10
        folder = root / part / f"digit {label}"
        folder.mkdir(parents=True, exist_ok=True)
        pixels = (digits.images[number] * 15).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{place:04}.png")
    return root


def prepared(root: Path, **keys: Any) -> Dataset:
    """Load the data set of a folder of pictures; decode it first if necessary."""
    config = DataConfig(name="folder", root=str(root), **keys)
    reading.prepare(config)
    return load(config, 0)
