"""From a source to a data set: check, split, scaling, fingerprint."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Literal, NamedTuple

import numpy as np
import torch

from trainer.config.schema import DataConfig
from trainer.data.dataset import Dataset, ImageSet
from trainer.data.image_file import StoredImages
from trainer.data.scaling import PixelSums, Scaling
from trainer.data.sources import reading
from trainer.data.sources.source_data import LabelledImages, SourceData, check
from trainer.data.split import Indices, split, take, take_fold


class Share(NamedTuple):
    """Some of the images of a part of a source.

    Args:
        origin: the name of that part: train, validation or test.
        part: all of its images.
        positions: in it.
    """

    origin: str
    part: LabelledImages
    positions: Indices


def load(
    config: DataConfig, seed: int, read_source: Callable[[], SourceData] | None = None
) -> Dataset:
    """Read the data set, divide it and fit the scaling.

    Args:
        seed: the run's; the folds and the stratified draw of the validation images depend on it.
        read_source: gives what `reading.read` would.

    Raises:
        UserError: a file is missing, damaged or not what it should be, or a size is impossible.
    """
    return of_source(config, seed, read_source() if read_source else reading.read(config))[0]


def of_source(
    config: DataConfig, seed: int, source: SourceData
) -> tuple[Dataset, tuple[Share, Share, Share]]:
    """The data set that is made of a source, and which of its images are in each part of it.

    Raises:
        UserError: as `load`.
    """
    class_names = check(source)
    shares = divide(config, source, seed, class_names)
    sets = tuple(image_set(share.part, share.positions) for share in shares)
    scaling, fingerprint = _look_through(sets, config.scaling)
    dataset = Dataset(
        name=config.name,
        class_names=class_names,
        train=sets[0],
        validation=sets[1],
        test=sets[2],
        scaling=scaling,
        fingerprint=fingerprint,
        source=source.origin
        + (f", fold {config.fold} of {config.folds} for the test" if config.folds else ""),
        grey_range=source.grey_range,
    )
    return dataset, shares


def divide(
    config: DataConfig, source: SourceData, seed: int, class_names: Sequence[str] | None
) -> tuple[Share, Share, Share]:
    """What is trained on, validated and tested on: of which part, and the positions in it.

    Args:
        class_names: for messages; None: the numbers.

    Raises:
        UserError: there are not so many images, or they cannot be divided like this.
    """
    labels = source.train.labels.astype(np.int64)
    used = take("data.train_size", config.train_size, len(labels))
    if config.folds is None:
        size = take("data.test_size", config.test_size, len(source.test.labels))
        rest, test = np.arange(used), Share("test", source.test, np.arange(size))
    else:
        rest, fold = take_fold(config, labels[:used], seed, class_names)
        test = Share("train", source.train, fold)
    part = source.validation
    if part is None:
        train, validation = split(config, labels[rest], seed, class_names)
        held_out = Share("train", source.train, rest[validation])
        return Share("train", source.train, rest[train]), held_out, test
    # None of them is a choice too.
    chosen = config.validation_size
    chosen = take("data.validation_size", chosen, len(part.labels)) if chosen != 0 else 0
    held_out = Share("validation", part, np.arange(chosen))
    return Share("train", source.train, rest), held_out, test


def load_training(config: DataConfig) -> ImageSet:
    """All training images that are used, in file order, before they are divided.

    Raises:
        UserError: as `load`.
    """
    source = reading.read(config)
    check(source)
    used = take("data.train_size", config.train_size, len(source.train.labels))
    return image_set(source.train, np.arange(used))


def select(part: LabelledImages, positions: Indices) -> LabelledImages:
    """Some of the images of a part of a source, in the order of `positions`."""
    if len(positions) == len(part.labels):
        return part  # all of them are always in order
    images = part.images
    images = images.select(positions) if isinstance(images, StoredImages) else images[positions]
    names = part.names and tuple(part.names[position] for position in positions.tolist())
    return replace(part, images=images, labels=part.labels[positions], names=names)


def image_set(part: LabelledImages, positions: Indices) -> ImageSet:
    """Images and targets at `positions`, as they are trained on or judged by."""
    targets = torch.from_numpy(part.labels[positions].astype(np.int64))
    if isinstance(part.images, StoredImages):
        return ImageSet(part.images.select(positions), targets)
    # All of a part need no second copy in the memory.
    whole = len(positions) == len(part.images)
    images = torch.from_numpy(part.images if whole else part.images[positions])
    # A single channel leaves the strides open, and torch takes one choice for channels_last.
    return ImageSet(images.flatten().view(images.shape), targets)


def _look_through(
    sets: tuple[ImageSet, ...], kind: Literal["global", "per_pixel"]
) -> tuple[Scaling, str]:
    """The scaling of the first set and the fingerprint of all, in one pass over their bytes."""
    digest, sums = hashlib.sha256(), PixelSums()
    for images in sets:
        _digest(digest, images, sums if images is sets[0] else None)
    return sums.scaling(kind), digest.hexdigest()


def fingerprint_of(images: ImageSet) -> str:
    """SHA-256, hexadecimal, of the shape, the bytes and the targets of one set."""
    digest = hashlib.sha256()
    _digest(digest, images, None)
    return digest.hexdigest()


def _digest(digest: hashlib._Hash, images: ImageSet, sums: PixelSums | None) -> None:
    digest.update(repr(tuple(images.images.shape)).encode())
    for chunk in images.chunks():
        digest.update(chunk.cpu().numpy().data)
        if sums is not None:
            sums.add(chunk)
    digest.update(images.targets.cpu().numpy().astype("<i8").data)
