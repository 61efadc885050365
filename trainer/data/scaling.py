"""Scaling of the pixels, fitted on the training split."""

from __future__ import annotations

import math
from typing import Literal

import torch

from trainer.data.sets import Scaling

_CHUNK_PIXELS = 2**22


def fit(images: torch.Tensor, kind: Literal["global", "per_pixel"]) -> Scaling:
    """Mean and deviation of all pixels together, or of every pixel by itself.

    The deviation is that of the population, and 1 where it would be 0, as in scikit-learn's
    StandardScaler. The sums are sums of whole numbers in float64, hence exact in any order.

    Args:
        images: uint8 (n, channels, height, width), n at least 1.
    """
    total = torch.zeros(images.shape[1:], dtype=torch.float64)
    squares = torch.zeros_like(total)
    for chunk in torch.split(images, max(1, _CHUNK_PIXELS // total.numel())):
        values = chunk.double()
        total += values.sum(0)
        squares += values.square_().sum(0)
    count = len(images)
    if kind == "global":
        total, squares = total.sum().reshape(1, 1, 1), squares.sum().reshape(1, 1, 1)
        count = math.prod(images.shape)
    mean = total / count
    deviation = ((count * squares - total.square()).clamp(min=0)).sqrt() / count
    deviation[deviation == 0] = 1
    return Scaling(mean.float(), deviation.float())
