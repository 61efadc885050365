"""LeNet-5."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.functional import avg_pool2d

from models.common import check_image_size
from models.registry import register


@register("lenet5")
class LeNet5(nn.Module):
    """LeNet-5 in the form that is usual today.

    LeCun et al.: Gradient-Based Learning Applied to Document Recognition, 1998. Unlike there, the
    padding of the first convolution takes the place of a border around the 28x28 digits, pooling
    has no weights, the second convolution sees all maps of the first, and the output is linear.
    61,706 parameters at 28x28 grey pixels and ten classes.
    """

    def __init__(self, num_classes: int, in_channels: int, image_size: tuple[int, int]) -> None:
        super().__init__()
        check_image_size(image_size, minimum=12)
        height, width = ((side // 2 - 4) // 2 for side in image_size)
        self.conv1 = nn.Conv2d(in_channels, 6, 5, padding=2)
        self.conv2 = nn.Conv2d(6, 16, 5)
        self.linear1 = nn.Linear(16 * height * width, 120)
        self.linear2 = nn.Linear(120, 84)
        self.linear3 = nn.Linear(84, num_classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return logits (n, num_classes) of images (n, channels, height, width)."""
        features = avg_pool2d(torch.tanh(self.conv1(images)), 2)
        features = avg_pool2d(torch.tanh(self.conv2(features)), 2)
        features = torch.tanh(self.linear1(features.flatten(1)))
        features = torch.tanh(self.linear2(features))
        logits: torch.Tensor = self.linear3(features)
        return logits
