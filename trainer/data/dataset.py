"""A data set as the rest of the trainer sees it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
import torch

from trainer.data.pictures.high_bit_depth import GreyRange
from trainer.data.scaling import Scaling

_CHUNK_BYTES = 2**22


class Images(Protocol):
    """Images, uint8 (n, channels, height, width), as a tensor or in a file."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(n, channels, height, width)."""

    @property
    def nbytes(self) -> int:
        """The bytes that they take in memory."""

    @property
    def device(self) -> torch.device:
        """The device of a batch's images, and of the indices to choose them by."""

    def __getitem__(self, chosen: slice, /) -> torch.Tensor: ...

    def index_select(self, dim: int, index: torch.Tensor, /) -> torch.Tensor:
        """Return the images at `index`, int64 (k,), in its order; `dim` is 0."""

    def to(self, device: torch.device | str, /) -> Images:
        """Return the images on a device; images in a file stay there."""


@runtime_checkable
class UndecodedImages(Images, Protocol):
    """Images that are made of pictures when a batch asks for them."""

    @property
    def sha256(self) -> npt.NDArray[np.uint8]:
        """SHA-256 of the bytes of each picture, uint8 (n, 32)."""

    @property
    def identity(self) -> str:
        """What else decides on the pixels, in words: the stored form, and how it is made fit."""


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Images and their classes, fetched a whole batch at a time.

    Args:
        images: uint8 (n, channels, height, width), contiguous, or still in their file; or in their
            place features, float32 (n, features, 1, 1).
        targets: int64 (n,), the class of each image; of those that may have several labels uint8
            (n, classes), 0 or 1.
    """

    images: Images
    targets: torch.Tensor

    def __len__(self) -> int:
        return len(self.targets)

    def fetch(self, indices: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return images and targets of a batch, in the order of `indices`, int64 (batch,)."""
        # On a CPU this is several times as fast as indexing.
        return self.images.index_select(0, indices), self.fetch_targets(indices)

    def fetch_targets(self, indices: torch.Tensor) -> torch.Tensor:
        """Return the targets of a batch as losses take them: int64 (n,) or float32 (n, classes)."""
        found = self.targets.index_select(0, indices)
        return found.float() if self.has_several_labels else found

    @property
    def has_several_labels(self) -> bool:
        """Whether an image may have several labels, or none."""
        return self.targets.ndim == 2

    def to(self, device: torch.device | str) -> ImageSet:
        """Return the same set on `device`; targets stay with images that do not move."""
        images = self.images.to(device)
        return ImageSet(images, self.targets.to(images.device))

    def move_if_it_fits(self, device: torch.device) -> ImageSet:
        """Move to the device, unless the images would take half of its free memory."""
        return self.to(device) if _fits(self.images.nbytes, device) else self

    def chunks(self) -> Iterator[torch.Tensor]:
        """Yield all images in order, some megabytes at a time."""
        step = max(1, _CHUNK_BYTES // math.prod(self.images.shape[1:]))
        for begin in range(0, len(self), step):
            yield self.images[begin : begin + step]

    def pictures(self, indices: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
        """Return images to be drawn: uint8 (n, height, width) or (n, height, width, 3).

        Of more than three channels the first three are shown, of two the first.
        """
        pixels, _ = self.fetch(torch.from_numpy(indices).to(self.images.device))
        return drawable(pixels)


@dataclass(frozen=True, eq=False)
class Dataset:
    """A data set as a run uses it: divided, with the scaling of its training split.

    Args:
        name: data.name of the configuration.
        class_names: one for each class.
        train: the training split, without what was held out for validation, in file order.
        validation: held out of the training images, in file order; may be empty.
        test: the test images, in file order.
        scaling: fitted on `train` only.
        fingerprint: SHA-256, hexadecimal, of the shapes and bytes of the three sets; of pictures
            that are decoded again for each batch, of their files instead; and of `train_weights`.
        source: where the files came from, in words.
        grey_range: as in `SourceData`.
        train_weights: of the training images, by which they are drawn, float64 (n,); None: each
            comes once in an epoch.
        warnings: what the user should know of the images before a run, each in words.
    """

    name: str
    class_names: tuple[str, ...]
    train: ImageSet
    validation: ImageSet
    test: ImageSet
    scaling: Scaling
    fingerprint: str
    source: str
    grey_range: GreyRange | None = None
    train_weights: npt.NDArray[np.float64] | None = None
    warnings: tuple[str, ...] = ()

    def to(self, device: torch.device | str) -> Dataset:
        """Return the same data set on `device`."""
        return replace(
            self,
            train=self.train.to(device),
            validation=self.validation.to(device),
            test=self.test.to(device),
            scaling=self.scaling.to(device),
        )

    def place(self, device: torch.device, room_bytes: float) -> Dataset:
        """Move to the device: first the images to train on, then the others, where they fit.

        Images that are still in their file stay there.

        Args:
            room_bytes: how much images may take.
        """
        placed: dict[str, Any] = {}
        for part in ("train", "validation", "test"):
            images: ImageSet = getattr(self, part)
            size_bytes = images.images.nbytes if isinstance(images.images, torch.Tensor) else 0
            if size_bytes <= room_bytes:
                room_bytes -= size_bytes
                placed[part] = images.to(device)
        return replace(self, scaling=self.scaling.to(device), **placed)


def drawable(images: torch.Tensor) -> npt.NDArray[np.uint8]:
    """Return what is shown of uint8 images (n, channels, height, width), as `ImageSet.pictures`."""
    shown: npt.NDArray[np.uint8] = images[:, :3].permute(0, 2, 3, 1).cpu().numpy()
    return shown if shown.shape[3] == 3 else shown[..., 0]


def _fits(size_bytes: int, device: torch.device) -> bool:
    """Return whether this takes less than half of the free memory of a GPU."""
    return device.type != "cuda" or size_bytes <= torch.cuda.mem_get_info(device)[0] / 2
