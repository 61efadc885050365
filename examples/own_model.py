"""A network of your own: any torch module that returns one logit for each class.

python train.py --config configs/digits.yaml --model.name examples/own_model.py:OwnModel \
    --model.args '{"filters": 24}' --output_dir runs/own_model
"""

from __future__ import annotations

import torch
from torch import nn


class OwnModel(nn.Module):
    """Two convolutions and a linear layer.

    `num_classes`, `in_channels` and `image_size` come from the data, if the constructor takes them;
    anything else comes from `model.args`.
    """

    def __init__(self, num_classes: int, in_channels: int, filters: int = 16) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(in_channels, filters, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(filters, 2 * filters, 3, padding=1),
            nn.ReLU(),
        )
        self.head = nn.Linear(2 * filters, num_classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return logits (n, num_classes) of images (n, in_channels, height, width)."""
        features = self.features(images).mean((2, 3))
        logits: torch.Tensor = self.head(features)
        return logits
