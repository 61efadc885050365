"""Scale pixels by a mean and a deviation, fitted on the training split."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch

# The squares of this many bytes add up to less than 2^24: float32 represents them exactly.
_EXACT_IMAGES = 256
# The sum of the squares of this many pixels fits into int64.
_MOST_PIXELS = (2**63 - 1) // 255**2


@dataclass(frozen=True, eq=False)
class Scaling:
    """What is subtracted from a pixel, and what it is then divided by, in units of pixel values.

    Args:
        mean: float32, (1, 1, 1) for all pixels or (channels, height, width) for each.
        deviation: float32, the same shape; nowhere zero.
    """

    mean: torch.Tensor
    deviation: torch.Tensor

    def apply(self, images: torch.Tensor) -> torch.Tensor:
        """Scale images: float32, the shape of `images`, which are on the same device."""
        scaled = images.to(torch.float32, copy=True)
        return scaled.sub_(self.mean).div_(self.deviation)

    def to(self, device: torch.device | str) -> Scaling:
        """Return the same scaling on `device`."""
        return Scaling(self.mean.to(device), self.deviation.to(device))


class PixelSums:
    """Sum over images that come in pieces, in whole numbers: exact in any order and pieces."""

    def __init__(self) -> None:
        self.count = 0
        self.total = torch.zeros((), dtype=torch.int64)
        self.squares = torch.zeros((), dtype=torch.int64)

    def add(self, images: torch.Tensor) -> None:
        """Add some images: uint8 (n, channels, height, width)."""
        for block in torch.split(images, _EXACT_IMAGES):
            values = block.float()
            self.total = self.total + values.sum(0).long()
            self.squares = self.squares + values.square_().sum(0).long()
        self.count += len(images)
        assert self.count * self.total.numel() <= _MOST_PIXELS, "the sums would overflow"

    def scaling(self, kind: Literal["global", "per_pixel"]) -> Scaling:
        """Compute the mean and deviation of all pixels together, or of each pixel.

        The deviation is that of the population, and 1 if it would be 0, as in scikit-learn's
        StandardScaler.
        """
        count, total, squares = self.count, self.total, self.squares
        if kind == "global":
            count *= total.numel()
            total, squares = total.sum().reshape(1, 1, 1), squares.sum().reshape(1, 1, 1)
        total, squares = total.double(), squares.double()
        mean = total / count
        deviation = ((count * squares - total.square()).clamp(min=0)).sqrt() / count
        deviation[deviation == 0] = 1
        return Scaling(mean.float(), deviation.float())
