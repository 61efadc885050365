"""A small VGG."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from models.common import check_image_size, check_probability, check_widths, initialise
from models.registry import register


@register("vgg_small")
class SmallVGG(nn.Module):
    """Blocks of two 3x3 convolutions and a 2x2 max pooling, then a linear layer.

    Simonyan, Zisserman: Very Deep Convolutional Networks for Large-Scale Image Recognition, 2015,
    with batch normalisation and without the hidden linear layers.

    Args:
        widths: channels of each block; images need 2 ** len(widths) pixels a side.
        dropout: before the linear layer.
    """

    def __init__(
        self,
        num_classes: int,
        in_channels: int,
        image_size: tuple[int, int],
        widths: Sequence[int] = (32, 64, 128),
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        check_widths(widths)
        check_probability("dropout", dropout)
        shrinkage = 2 ** len(widths)
        check_image_size(image_size, minimum=shrinkage)
        layers: list[nn.Module] = []
        for before, width in zip([in_channels, *widths], widths, strict=False):
            layers += [*_convolution(before, width), *_convolution(width, width), nn.MaxPool2d(2)]
        self.features = nn.Sequential(*layers)
        self.dropout = nn.Dropout(dropout)
        pixels = (image_size[0] // shrinkage) * (image_size[1] // shrinkage)
        self.classifier = nn.Linear(widths[-1] * pixels, num_classes)
        initialise(self.features)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return logits (n, num_classes) of images (n, channels, height, width)."""
        features = self.features(images).flatten(1)
        logits: torch.Tensor = self.classifier(self.dropout(features))
        return logits


def _convolution(in_channels: int, out_channels: int) -> list[nn.Module]:
    convolution = nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False)
    return [convolution, nn.BatchNorm2d(out_channels), nn.ReLU()]
