"""A data set: what the rest of the trainer sees of it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch

from trainer.data.pictures.high_bit_depth import GreyRange
from trainer.data.scaling import Scaling

_CHUNK_BYTES = 2**22


class Images(Protocol):
    """Images wherever they lie, uint8 (n, channels, height, width): a tensor, or in a file."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(n, channels, height, width)."""

    @property
    def nbytes(self) -> int:
        """What they take in memory."""

    @property
    def device(self) -> torch.device:
        """Where the indices of a batch have to be, and where the batch then is."""

    def __getitem__(self, chosen: slice, /) -> torch.Tensor: ...

    def index_select(self, dim: int, index: torch.Tensor, /) -> torch.Tensor:
        """The images at `index`, int64 (k,), in its order; `dim` is 0."""

    def to(self, device: torch.device | str, /) -> Images:
        """The images on a device, or as they are where they stay in their file."""


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Images and their classes, fetched a whole batch at a time.

    Args:
        images: uint8 (n, channels, height, width), contiguous, or still in their file.
        targets: int64 (n,), the class of each image.
    """

    images: Images
    targets: torch.Tensor

    def __len__(self) -> int:
        return len(self.targets)

    def __getitems__(self, indices: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Images and targets of a batch, in the order of `indices`, int64 (batch,)."""
        # On a CPU several times as fast as indexing.
        return self.images.index_select(0, indices), self.targets.index_select(0, indices)

    def to(self, device: torch.device | str) -> ImageSet:
        """The same set on `device`; targets stay beside images that do not move."""
        images = self.images.to(device)
        return ImageSet(images, self.targets.to(images.device))

    def move_if_it_fits(self, device: torch.device) -> ImageSet:
        """On the device; as it is where the images would take half of its free memory."""
        if device.type == "cuda":
            free_bytes, _ = torch.cuda.mem_get_info(device)
            if self.images.nbytes > free_bytes / 2:
                return self
        return self.to(device)

    def chunks(self) -> Iterator[torch.Tensor]:
        """All images in order, some megabytes at a time."""
        step = max(1, _CHUNK_BYTES // math.prod(self.images.shape[1:]))
        for begin in range(0, len(self), step):
            yield self.images[begin : begin + step]

    def pictures(self, indices: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
        """Images as they are drawn: uint8 (n, height, width) or (n, height, width, 3)."""
        pixels, _ = self.__getitems__(torch.from_numpy(indices).to(self.images.device))
        drawn: npt.NDArray[np.uint8] = pixels.permute(0, 2, 3, 1).cpu().numpy()
        return drawn[..., 0] if drawn.shape[3] == 1 else drawn


@dataclass(frozen=True, eq=False)
class Dataset:
    """A data set as a run uses it: divided, and with the scaling of its training split.

    Args:
        name: data.name of the configuration.
        class_names: one for each class.
        train: the training split, without what was held out for validation, in file order.
        validation: held out of the training images, in file order; may be empty.
        test: the test images, in file order.
        scaling: fitted on `train` alone.
        fingerprint: SHA-256, hexadecimal, of the three sets' shapes and bytes, whatever the name.
        source: where the files came from, for people.
        grey_range: as in `SourceData`.
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

    def to(self, device: torch.device | str) -> Dataset:
        """The same data set, all of it on `device`."""
        return replace(
            self,
            train=self.train.to(device),
            validation=self.validation.to(device),
            test=self.test.to(device),
            scaling=self.scaling.to(device),
        )

    def move_if_it_fits(self, device: torch.device) -> Dataset:
        """On the device; without the images where they would take half of its free memory.

        Images that are still in their file stay there.
        """
        if device.type == "cuda":
            free_bytes, _ = torch.cuda.mem_get_info(device)
            sets = (self.train, self.validation, self.test)
            if sum(images.images.nbytes for images in sets) > free_bytes / 2:
                return replace(self, scaling=self.scaling.to(device))
        return self.to(device)
