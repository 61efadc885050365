"""Training images in the place of test images, by which a length or a rate may be chosen."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import torch

from race import Race
from trainer.config.schema import DataConfig
from trainer.data import loading
from trainer.data.sources import idx, reading

TESTED = 10_000


def write(race: Race, root: str | None, folder: Path) -> int:
    """Write IDX files whose test images are training images that follow those of the race.

    Where the race takes all training images, the last are held out.

    Returns:
        How many images are left to train on.
    """
    config = DataConfig(name=race.data, root=root, validation_size=0)
    reading.prepare(config)
    train = loading.load(config, seed=0).train
    count = min(race.images, len(train.targets) - TESTED)
    folder.mkdir(parents=True)
    for (images, labels), part in {
        idx.TRAIN: slice(0, count),
        idx.TEST: slice(count, count + TESTED),
    }.items():
        _write(folder / images, train.images[part].squeeze(1))
        _write(folder / labels, train.targets[part])
    return count


def _write(path: Path, values: torch.Tensor) -> None:
    """Write unsigned bytes as an IDX file."""
    array = values.numpy().astype(np.uint8)
    header = struct.pack(f">4B{array.ndim}I", 0, 0, 0x08, array.ndim, *array.shape)
    path.write_bytes(header + array.tobytes())
