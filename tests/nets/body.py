"""What the networks here have in common.

They are plug-ins, and each class says in its docstring what is unusual in it. The classes take what
the data determine.
"""

from __future__ import annotations

import torch
from torch import nn


class Body(nn.Module):
    """A convolution and a linear layer."""

    def __init__(self, num_classes: int, in_channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, 8, 3, padding=1)
        self.head = nn.Linear(8, num_classes)

    def features(self, images: torch.Tensor) -> torch.Tensor:
        return self.conv(images).relu().amax((2, 3))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.head(self.features(images))
        return logits
