"""Picture files of many shapes, known as a plan knows them."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from trainer.config.schema import DataConfig
from trainer.data.pictures.decoding import read_info
from trainer.data.pictures.picture_set import KnownPictures, ListedPictures
from trainer.data.pictures.places import Places
from trainer.data.sources.stored_pictures import open_stored
from trainer.data.stored.pictures import StoredPictures


def write_photographs(root: Path, count: int, first: int = 0) -> None:
    """Write JPEG files of smooth colours, each of another shape."""
    root.mkdir(exist_ok=True)
    for number in range(first, first + count):
        height, width = 40 + 7 * number % 30, 50 + 11 * number % 40
        y, x, channel = np.indices((height, width, 3))
        pixels = (y * 3 + x * (number + 1) + channel * 60) % 256
        Image.fromarray(pixels.astype(np.uint8)).save(root / f"{number:02}.jpg", quality=95)


def know(root: Path) -> KnownPictures:
    """Know all pictures of a folder, in the order of their names."""
    paths = sorted(root.iterdir())
    infos = [read_info(path) for path in paths]
    listed = ListedPictures(
        Places(root, [path.name for path in paths]), np.zeros(len(paths), np.int64)
    )
    digests = [hashlib.sha256(path.read_bytes()).digest() for path in paths]
    return KnownPictures(
        listed,
        np.array([(info.height, info.width) for info in infos], np.int32),
        np.stack([np.frombuffer(digest, np.uint8) for digest in digests]),
    )


def open_pictures(root: Path, **keys: Any) -> StoredPictures:
    """Open all pictures of a folder as colour images of 24 x 32 pixels."""
    config = DataConfig(name="folder", root=str(root), cache_dir=str(root) + "-cache", **keys)
    opened = open_stored(
        {"train": know(root)},
        config,
        root=root,
        image_size=(24, 32),
        channels=3,
        grey_range=None,
    )
    return opened["train"]
