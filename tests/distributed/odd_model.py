"""Define a plug-in model with everything that could break a sum over micro-batches."""

from __future__ import annotations

import torch
from torch import nn


class OddModel(nn.Module):
    """Cumulative batch norm, dropout, and parameters that only some micro-batches use."""

    def __init__(self, num_classes: int, in_channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(in_channels, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8, momentum=None)
        self.second = nn.Conv2d(8, 8, 3, padding=1, bias=False)
        self.tied = nn.Conv2d(8, 8, 3, padding=1, bias=False)
        self.tied.weight = self.second.weight
        self.frozen = nn.Parameter(torch.full((8, 1, 1), 0.5), requires_grad=False)
        self.sometimes = nn.Linear(8, 8)
        self.never = nn.Linear(3, 3)
        self.dropout = nn.Dropout(0.2)
        self.head = nn.Linear(8, num_classes)
        self.register_buffer("largest", torch.zeros(8))
        self.register_buffer("calls", torch.zeros((), dtype=torch.int32))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return logits of images; in training also count calls and remember features."""
        features = self.norm(self.first(images)).relu() + self.frozen
        features = self.tied(self.second(features).relu()).amax((2, 3))
        if self.training:
            self.calls += 1
            self.largest.lerp_(features.detach().amax(0), 0.1)
        # Depends only on the samples, so it is the same micro-batches on any process count.
        if images.shape[0] % 2 == 0:
            features = features + self.sometimes(features)
        logits: torch.Tensor = self.head(self.dropout(features))
        return logits
