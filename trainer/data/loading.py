"""From the configuration to a data set: source, check, split, scaling, fingerprint."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch

from trainer.config import DataConfig
from trainer.data import digits, idx, known, npy, scaling
from trainer.data.sets import Dataset, ImageSet
from trainer.data.source import LabelledImages, SourceData, check
from trainer.data.split import Indices, split, take
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
    return Dataset(
        name=config.name,
        class_names=class_names,
        train=sets[0],
        validation=sets[1],
        test=sets[2],
        scaling=scaling.fit(sets[0].images, config.scaling),
        fingerprint=_fingerprint(sets),
        source=source.origin,
    )


def _read(config: DataConfig) -> SourceData:
    if config.name in known.KNOWN:
        return known.read(known.KNOWN[config.name], config.root)
    if config.name == "idx":
        return idx.read_folder(_root(config))
    if config.name == "npy":
        return npy.read_folder(_root(config))
    return digits.read()


def _root(config: DataConfig) -> Path:
    if not config.root:
        raise UserError(f"data.root: null, but data.name {config.name} needs the files' folder")
    return Path(config.root).expanduser()


def _image_set(part: LabelledImages, positions: Indices) -> ImageSet:
    images = torch.from_numpy(part.images[positions])
    # A single channel leaves the strides open, and torch takes one choice for channels_last.
    images = images.flatten().view(images.shape)
    return ImageSet(images, torch.from_numpy(part.labels[positions].astype(np.int64)))


def _fingerprint(sets: tuple[ImageSet, ...]) -> str:
    digest = hashlib.sha256()
    for images in sets:
        digest.update(repr(tuple(images.images.shape)).encode())
        digest.update(images.images.numpy().data)
        digest.update(images.targets.numpy().astype("<i8").data)
    return digest.hexdigest()
