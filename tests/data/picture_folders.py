"""Folders of real picture files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image


def write_pictures(
    root: Path,
    parts: Sequence[str] = ("train", "test"),
    classes: Sequence[str] = ("cat", "dog"),
    count: int = 10,
    size: tuple[int, int] = (12, 10),
    channels: int = 1,
) -> Path:
    """`count` different PNG files of each class and part; height and width are `size`."""
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
