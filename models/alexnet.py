"""A small AlexNet."""

from __future__ import annotations

import torch
from torch import nn

from models.common import check_image_size, check_probability, initialise
from models.registry import register


@register("alexnet_small")
class SmallAlexNet(nn.Module):
    """AlexNet scaled down to small images.

    Krizhevsky et al.: ImageNet Classification with Deep Convolutional Neural Networks, 2012. Five
    convolutions, three overlapping poolings and two hidden linear layers as there; the kernels are
    3x3 with stride 1, the widths a third or less, and response normalisation is left out.

    Args:
        dropout: before each hidden linear layer.
    """

    def __init__(
        self,
        num_classes: int,
        in_channels: int,
        image_size: tuple[int, int],
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        check_probability("dropout", dropout)
        check_image_size(image_size, minimum=4)
        self.features = nn.Sequential(
            *_convolution(in_channels, 32),
            nn.MaxPool2d(3, stride=2, padding=1),
            *_convolution(32, 64),
            nn.MaxPool2d(3, stride=2, padding=1),
            *_convolution(64, 128),
            *_convolution(128, 128),
            *_convolution(128, 64),
            nn.MaxPool2d(3, stride=2, padding=1),
        )
        height, width = (-(-side // 8) for side in image_size)
        self.hidden = nn.Sequential(
            nn.Flatten(),
            nn.Dropout(dropout),
            nn.Linear(64 * height * width, 512),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(512, 512),
            nn.ReLU(),
        )
        self.classifier = nn.Linear(512, num_classes)
        initialise(self.features)
        initialise(self.hidden)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return logits (n, num_classes) of images (n, channels, height, width)."""
        logits: torch.Tensor = self.classifier(self.hidden(self.features(images)))
        return logits


def _convolution(in_channels: int, out_channels: int) -> list[nn.Module]:
    return [nn.Conv2d(in_channels, out_channels, 3, padding=1), nn.ReLU()]
