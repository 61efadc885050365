"""Draw the numbers of a transform in a list, and turn them into parameters."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from trainer.base import seeding

RATIO_STEPS = 1024
"""of a table of ratios whose logarithms are evenly spaced"""


@dataclass(frozen=True)
class Draw:
    """Draws the numbers of a transform, for the samples of a batch."""

    seed: int
    epoch: int
    samples: torch.Tensor
    """int64 (n,), on the CPU"""
    place: int
    """of the transform in the list"""

    def __call__(self, count: int) -> torch.Tensor:
        """Return numbers in [0, 1): float32 (n, count)."""
        return self._uniform(self.epoch, self.samples, count, self.place)

    def for_all_epochs(self, count: int) -> torch.Tensor:
        """Return numbers that are the same in every epoch: float32 (n, count)."""
        return self._uniform(0, self.samples, count, self.place)

    def noise(self, chosen: torch.Tensor, shape: torch.Size, device: torch.device) -> torch.Tensor:
        """Return a level for each pixel and channel: uint8 (k, *shape) for images int64 (k,)."""
        samples = self.samples[chosen].to(device, non_blocking=True)
        numbers = self._uniform(self.epoch, samples, math.prod(shape), self.place, 1)
        return (numbers * 256).to(torch.uint8).view(-1, *shape)

    def _uniform(self, epoch: int, samples: torch.Tensor, count: int, *place: int) -> torch.Tensor:
        return seeding.uniform(self.seed, "augmentation", epoch, samples, count, *place)


def choose(numbers: torch.Tensor, probability: float) -> torch.Tensor:
    """Return the positions of the numbers, float32 (n,), that a probability lets through."""
    return (numbers < probability).nonzero()[:, 0]


def between(numbers: torch.Tensor, bounds: Sequence[float]) -> torch.Tensor:
    """Move numbers in [0, 1) to a range."""
    least, most = bounds
    return least + (most - least) * numbers


def spread_ratios(numbers: torch.Tensor, most: float) -> torch.Tensor:
    """Turn numbers in [0, 1), float64 (n,), into ratios from 1 / most to most.

    Their logarithms are evenly spread. They come from a table by Python's numbers, as the
    exponentials of a vector unit may round differently.
    """
    return _ratios(most)[(numbers * (RATIO_STEPS + 1)).long()]


@functools.lru_cache(maxsize=64)
def _ratios(most: float) -> torch.Tensor:
    exponents = [2 * step / RATIO_STEPS - 1 for step in range(RATIO_STEPS + 1)]
    # Rounded to float32, which hides what different libraries do to the last bit.
    return torch.tensor([most**exponent for exponent in exponents]).double()
