"""Write IDX files, independently of the reader."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np

from trainer.data.sources import idx


def idx_bytes(values: np.ndarray) -> bytes:
    """Return the content of the IDX file with these values."""
    sizes = b"".join(size.to_bytes(4, "big") for size in values.shape)
    return bytes([0, 0, 8, values.ndim]) + sizes + values.astype(np.uint8).tobytes()


def write_idx_folder(
    folder: Path, train: int = 40, test: int = 20, classes: int = 4, packed: bool = False
) -> dict[str, np.ndarray]:
    """Write four IDX files of random images of 5 x 6 pixels, the same number of every class."""
    random = np.random.default_rng(7)
    folder.mkdir(parents=True, exist_ok=True)
    arrays: dict[str, np.ndarray] = {}
    for (images, labels), count in ((idx.TRAIN, train), (idx.TEST, test)):
        arrays[images] = random.integers(0, 256, (count, 5, 6), dtype=np.uint8)
        arrays[labels] = (np.arange(count) % classes).astype(np.uint8)
    for name, values in arrays.items():
        content = idx_bytes(values)
        path = folder / f"{name}.gz" if packed else folder / name
        path.write_bytes(gzip.compress(content) if packed else content)
    return arrays
