"""What every source returns before it is divided, and the checks that all sources pass."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from trainer.base.errors import UserError
from trainer.data.pictures import packed_names
from trainer.data.pictures.high_bit_depth import GreyRange
from trainer.data.unread_images import UnreadImages


@dataclass(frozen=True)
class Cached:
    """Where the cache has what is known of images.

    Args:
        name: of the images and labels; other ones have another name.
        notes: the entry in which what is measured of them may be kept.
    """

    name: str
    notes: Path


@dataclass(frozen=True, eq=False)
class LabelledImages:
    """Images and labels of one split, as they were read.

    Args:
        images: uint8 (n, channels, height, width), in memory or not.
        labels: integers (n,), of any integer type; of images that may have several uint8
            (n, classes), 0 or 1.
        images_file: the file of the images, for messages.
        labels_file: the file of the labels, for messages.
        names: of each image's picture, where each has its own.
        groups: numbers of what must stay on one side of a split, int64 (n,), the same in all parts
            of a source; None if there are no groups.
        weights: of each image, float64 (n,); None: all weigh the same.
        sha256: of the bytes of each image's picture, uint8 (n, 32), where each has its own.
        sizes: height and width of each image's picture in its file, int32 (n, 2), where each has
            its own.
        cached: what the cache has of these images; None: they come from elsewhere.
    """

    images: npt.NDArray[np.uint8] | UnreadImages
    labels: npt.NDArray[np.integer[Any]]
    images_file: str
    labels_file: str
    names: Sequence[str] | None = None
    groups: npt.NDArray[np.int64] | None = None
    weights: npt.NDArray[np.float64] | None = None
    sha256: npt.NDArray[np.uint8] | None = None
    sizes: npt.NDArray[np.int32] | None = None
    cached: Cached | None = None

    def select(self, positions: npt.NDArray[np.int64]) -> LabelledImages:
        """Return the images at `positions`, which are all different, in this order."""
        if np.array_equal(positions, np.arange(len(self.labels))):
            return self  # without a second copy in memory
        images = self.images
        chosen = images[positions] if isinstance(images, np.ndarray) else images.select(positions)
        return replace(
            self,
            images=chosen,
            labels=self.labels[positions],
            names=None if self.names is None else packed_names.select(self.names, positions),
            groups=None if self.groups is None else self.groups[positions],
            weights=None if self.weights is None else self.weights[positions],
            sha256=None if self.sha256 is None else self.sha256[positions],
            sizes=None if self.sizes is None else self.sizes[positions],
            cached=None,
        )


class Subset(NamedTuple):
    """Some of the images of one split of a source.

    Args:
        split: the source's split that the images come from: train, validation or test.
        data: all images of that split.
        positions: which of them, int64 (n,).
    """

    split: str
    data: LabelledImages
    positions: npt.NDArray[np.int64]

    def select(self) -> LabelledImages:
        """Return these images only."""
        return self.data.select(self.positions)


@dataclass(frozen=True, eq=False)
class SourceData:
    """All images of a source.

    Args:
        class_names: None if the source does not know them: then they are the numbers from 0 to
            the largest training label, or of the columns of labels.
        origin: where the files came from, in words.
        validation: images that the source itself sets apart for it; None if they are held out
            of `train`.
        grey_range: the values that became black and white in pictures of more than 8 bits a
            channel; None if there are no such pictures.
    """

    train: LabelledImages
    test: LabelledImages
    class_names: tuple[str, ...] | None
    origin: str
    validation: LabelledImages | None = None
    grey_range: GreyRange | None = None


@dataclass(frozen=True, eq=False)
class SourceSplit:
    """One split of a source, to evaluate a model on.

    Args:
        data: its images.
        class_names: None if the source does not know them: then the labels are numbers.
        origin: where the files came from, in words.
    """

    data: LabelledImages
    class_names: tuple[str, ...] | None
    origin: str


def check(data: SourceData) -> tuple[str, ...]:
    """Make sure that images and labels fit together, and return the class names.

    Raises:
        UserError: names the file, what was found and what would be right.
    """
    parts = [part for part in (data.train, data.validation, data.test) if part is not None]
    for part in parts:
        check_counts(part)
        if part.images.shape[1:] != data.train.images.shape[1:]:
            raise UserError(
                f"{data.train.images_file} has images of {_size(data.train)}, but "
                f"{part.images_file} of {_size(part)}; all images must have the same size"
            )
    class_names = data.class_names or _numbered(data.train)
    if data.train.labels.ndim == 2:
        _check_columns(data.train, parts, class_names)
        return class_names
    for part in parts:
        check_range(part, len(class_names))
    return class_names


def check_counts(part: LabelledImages) -> None:
    """Make sure that there are images, and one label for each.

    Raises:
        UserError: names the file and what was found.
    """
    if len(part.images) != len(part.labels):
        raise UserError(
            f"{part.images_file} has {len(part.images)} images, but {part.labels_file} has "
            f"{len(part.labels)} labels; there must be one label for each image"
        )
    if 0 in part.images.shape:
        raise UserError(
            f"{part.images_file}: has no pixels, its shape (images, channels, height, width) is "
            f"{part.images.shape}; there must be at least one image"
        )


def _size(part: LabelledImages) -> str:
    channels, height, width = part.images.shape[1:]
    return f"{height} x {width} pixels and {channels} channel{'s' if channels > 1 else ''}"


def _numbered(train: LabelledImages) -> tuple[str, ...]:
    """Name the classes by their numbers, up to the largest label, which must not be absurd."""
    if train.labels.ndim == 2:
        return tuple(map(str, range(train.labels.shape[1])))
    position = int(train.labels.argmax())
    classes = int(train.labels[position]) + 1
    if classes > len(train.labels):
        raise UserError(
            f"{train.labels_file}: label {classes - 1} at position {position} would mean {classes} "
            f"classes, more than the {len(train.labels)} training images; classes count from 0"
        )
    if classes < 2:
        raise UserError(
            f"{train.labels_file}: no label is above {classes - 1}; classes count from 0, and "
            "there must be at least 2"
        )
    return tuple(map(str, range(classes)))


def _check_columns(
    train: LabelledImages, parts: Sequence[LabelledImages], class_names: Sequence[str]
) -> None:
    """Make sure that images that may have several labels have a column for each class.

    Raises:
        UserError: names the file, what was found and what would be right.
    """
    for part in parts:
        if part.labels.shape[1:] != (len(class_names),):
            raise UserError(
                f"{part.labels_file}: found labels of the shape {part.labels.shape}; with "
                f"{len(class_names)} classes it must be ({len(part.images)}, {len(class_names)})"
            )
    if not train.labels.any():
        raise UserError(f"{train.labels_file}: no image to train on has a label")


def check_range(part: LabelledImages, classes: int) -> None:
    """Make sure that every label is the number of a class.

    Raises:
        UserError: names the file, and the first label that is not, with its position.
    """
    outside = (part.labels < 0) | (part.labels >= classes)
    if outside.any():
        position = int(outside.argmax())
        raise UserError(
            f"{part.labels_file}: label {part.labels[position]} at position {position}; with "
            f"{classes} classes a label must be between 0 and {classes - 1}"
        )
