"""The lab's net: two convolutions and one linear layer."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.functional import max_pool2d, relu

from models.common import check_image_size
from models.registry import register


@register("lab_cnn")
class LabCNN(nn.Module):
    """Twice a 5x5 convolution, ReLU and 2x2 max pooling, then a linear layer.

    28,938 parameters at 28x28 grey pixels and ten classes.
    """

    def __init__(self, num_classes: int, in_channels: int, image_size: tuple[int, int]) -> None:
        super().__init__()
        check_image_size(image_size, minimum=4)
        height, width = image_size
        self.conv1 = nn.Conv2d(in_channels, 16, 5, padding=2)
        self.conv2 = nn.Conv2d(16, 32, 5, padding=2)
        self.linear = nn.Linear(32 * (height // 4) * (width // 4), num_classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return logits (n, num_classes) of images (n, channels, height, width)."""
        features = max_pool2d(relu(self.conv1(images)), 2)
        features = max_pool2d(relu(self.conv2(features)), 2)
        logits: torch.Tensor = self.linear(features.flatten(1))
        return logits
