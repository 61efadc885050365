"""Images that are read or made when a batch asks for them, and stay where they are until then.

Torch is imported only for a batch: see `raw_images`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Self

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import torch

Indices = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class UnreadImages(ABC):
    """Some images, in any order, with the methods of a tensor that an `ImageSet` uses.

    Args:
        positions: of the images where they come from, int64 (n,).
    """

    positions: Indices

    @property
    @abstractmethod
    def shape(self) -> tuple[int, ...]:
        """(n, channels, height, width)."""

    @abstractmethod
    def _read(self, positions: Indices) -> torch.Tensor:
        """Read or make the images at these positions: uint8 (n, channels, height, width)."""

    @property
    def nbytes(self) -> int:
        """The bytes that they take in memory for the whole run."""
        return self.positions.nbytes

    @property
    def device(self) -> torch.device:
        """The device of a batch."""
        import torch

        return torch.device("cpu")

    def __len__(self) -> int:
        return len(self.positions)

    def __getitem__(self, chosen: slice) -> torch.Tensor:
        """Read neighbouring images: uint8 (n, channels, height, width), contiguous."""
        return self._read(self.positions[chosen])

    def index_select(self, dim: int, index: torch.Tensor) -> torch.Tensor:
        """Read some images; `dim` is 0."""
        return self._read(self.positions[index.numpy()])

    def to(self, device: torch.device | str) -> Self:
        """Return itself: a batch is read on the CPU for any device."""
        return self

    def select(self, positions: Indices) -> Self:
        """Return some of the images, without reading them."""
        return replace(self, positions=self.positions[positions])


def channels_first(pixels: torch.Tensor) -> torch.Tensor:
    """Return images (n, height, width, channels) as (n, channels, height, width), contiguous."""
    moved = pixels.permute(0, 3, 1, 2)
    # A single channel leaves the strides open, and torch takes one choice for channels_last.
    return moved.flatten().view(moved.shape)
