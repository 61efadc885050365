"""From the configuration to a data set: source, check, split, scaling, fingerprint."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from trainer.config import DataConfig
from trainer.data import digits, idx, known, npy
from trainer.data.scaling import PixelSums
from trainer.data.sets import Dataset, ImageSet, Scaling
from trainer.data.source import LabelledImages, SourceData, check
from trainer.data.split import Indices, split, take
from trainer.data.stored import StoredImages
from trainer.errors import UserError


@contextmanager
def _forbidden_is_mendable() -> Iterator[None]:
    """Folders that may not be entered: a message instead of a traceback."""
    try:
        yield
    except PermissionError as error:
        raise UserError(f"{error.filename}: may not be read; give yourself access to it") from error


@_forbidden_is_mendable()
def prepare(config: DataConfig) -> None:
    """Make sure that the files are at hand; the known sets are downloaded where need be.

    One process of a machine calls this first, the others wait for it and then `load`.

    Raises:
        UserError: the files are not there; says where they were looked for.
    """
    if config.name in known.KNOWN:
        known.prepare(known.KNOWN[config.name], config.root)
    elif config.name == "idx":
        idx.locate(_root(config), "data.root")
    elif config.name == "npy":
        npy.locate(_root(config))


@_forbidden_is_mendable()
def load(config: DataConfig, seed: int) -> Dataset:
    """Read the data set, divide it and fit the scaling. Never downloads: see `prepare`.

    Args:
        seed: the run's; the stratified draw of the validation images depends on it.

    Raises:
        UserError: a file is missing, damaged or not what it should be, or a size is impossible.
    """
    source = _read(config)
    class_names = check(source)
    labels = source.train.labels.astype(np.int64)
    used = take("data.train_size", config.train_size, len(labels))
    train, validation = split(config, labels[:used], seed)
    test = np.arange(take("data.test_size", config.test_size, len(source.test.labels)))
    sets = (
        _image_set(source.train, train),
        _image_set(source.train, validation),
        _image_set(source.test, test),
    )
    scaling, fingerprint = _look_through(sets, config.scaling)
    return Dataset(
        name=config.name,
        class_names=class_names,
        train=sets[0],
        validation=sets[1],
        test=sets[2],
        scaling=scaling,
        fingerprint=fingerprint,
        source=source.origin,
    )


def _read(config: DataConfig) -> SourceData:
    if config.name in known.KNOWN:
        return known.read(known.KNOWN[config.name], config.root)
    limit_bytes = config.memory_limit_mb * 10**6
    if config.name == "idx":
        return idx.read_folder(_root(config), limit_bytes)
    if config.name == "npy":
        return npy.read_folder(_root(config), limit_bytes)
    return digits.read()


def _root(config: DataConfig) -> Path:
    if not config.root:
        raise UserError(f"data.root: null, but data.name {config.name} needs the files' folder")
    return Path(config.root).expanduser()


def _image_set(part: LabelledImages, positions: Indices) -> ImageSet:
    targets = torch.from_numpy(part.labels[positions].astype(np.int64))
    if isinstance(part.images, StoredImages):
        return ImageSet(part.images.select(positions), targets)
    images = torch.from_numpy(part.images[positions])
    # A single channel leaves the strides open, and torch takes one choice for channels_last.
    return ImageSet(images.flatten().view(images.shape), targets)


def _look_through(
    sets: tuple[ImageSet, ImageSet, ImageSet], kind: Literal["global", "per_pixel"]
) -> tuple[Scaling, str]:
    """The scaling of the first set and the fingerprint of all, in one pass over their bytes."""
    digest, sums = hashlib.sha256(), PixelSums()
    for images in sets:
        digest.update(repr(tuple(images.images.shape)).encode())
        for chunk in images.chunks():
            digest.update(chunk.numpy().data)
            if images is sets[0]:
                sums.add(chunk)
        digest.update(images.targets.numpy().astype("<i8").data)
    return sums.scaling(kind), digest.hexdigest()
