"""Residual nets for photographs, whose stem quarters the image before the first block."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn.functional import relu

from models.common import check_flag, check_probability, check_widths, initialise
from models.registry import register
from models.resnet import SqueezeExcitation, StochasticDepth


class BasicBlock(nn.Module):
    """Two 3x3 convolutions, added to the input; batch normalisation follows each, ReLU the sum.

    Where the block halves the image, its shortcut takes the means of 2x2 pixels before its 1x1
    convolution, and so sees all of them (the D of ResNet-D).
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        stride: int,
        *,
        drop_path: float,
        squeeze_excitation: bool,
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(out_channels)
        self.scale = SqueezeExcitation(out_channels) if squeeze_excitation else nn.Identity()
        self.drop_path = StochasticDepth(drop_path)
        shortcut: list[nn.Module] = []
        if stride != 1:
            shortcut.append(nn.AvgPool2d(stride, ceil_mode=True))
        if stride != 1 or in_channels != out_channels:
            shortcut.append(nn.Conv2d(in_channels, out_channels, 1, bias=False))
            shortcut.append(nn.BatchNorm2d(out_channels))
        self.shortcut = nn.Sequential(*shortcut)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Map (n, in_channels, height, width) to (n, out_channels, height/stride, width/stride)."""
        residual = relu(self.norm1(self.conv1(features)))
        residual = self.scale(self.norm2(self.conv2(residual)))
        return relu(self.shortcut(features) + self.drop_path(residual))


@register("resnet_d")
class ResNetD(nn.Module):
    """ResNet-D with basic blocks: stem, stages of blocks, global average pooling, a linear layer.

    He, Zhang, Zhang, Zhang, Xie, Li: Bag of Tricks for Image Classification with Convolutional
    Neural Networks, CVPR 2019, arXiv 1812.01187. Their stem ends with max pooling; here its second
    convolution has stride 2 in its place, which computes a quarter as much.

    Args:
        widths: channels of each stage; each but the first halves the image.
        blocks: of each stage.
        dropout: before the linear layer.
        drop_path: probability of leaving out the last block; it grows evenly from 0 at the stem.
        squeeze_excitation: in the blocks.
    """

    def __init__(
        self,
        num_classes: int,
        in_channels: int,
        widths: Sequence[int] = (48, 96, 192, 384),
        blocks: Sequence[int] = (2, 2, 2, 2),
        dropout: float = 0.0,
        drop_path: float = 0.0,
        squeeze_excitation: bool = False,
    ) -> None:
        super().__init__()
        check_widths(widths)
        check_probability("dropout", dropout)
        check_probability("drop_path", drop_path)
        check_flag("squeeze_excitation", squeeze_excitation)
        _check_blocks(blocks, len(widths))
        half = max(widths[0] // 2, 1)
        self.stem = nn.Sequential(
            nn.Conv2d(in_channels, half, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(half),
            nn.ReLU(),
            nn.Conv2d(half, widths[0], 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(widths[0]),
            nn.ReLU(),
        )
        layers: list[nn.Module] = []
        channels = widths[0]
        for stage, (width, count) in enumerate(zip(widths, blocks, strict=True)):
            for index in range(count):
                block = BasicBlock(
                    channels,
                    width,
                    stride=2 if stage > 0 and index == 0 else 1,
                    drop_path=drop_path * (len(layers) + 1) / sum(blocks),
                    squeeze_excitation=squeeze_excitation,
                )
                layers.append(block)
                channels = width
        self.blocks = nn.Sequential(*layers)
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(channels, num_classes)
        initialise(self.stem)
        initialise(self.blocks)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return logits (n, num_classes) of images (n, channels, height, width)."""
        features = self.blocks(self.stem(images))
        # Not AdaptiveAvgPool2d, whose backward pass is not deterministic on CUDA.
        logits: torch.Tensor = self.classifier(self.dropout(features.mean((2, 3))))
        return logits


def _check_blocks(blocks: Sequence[int], stages: int) -> None:
    """Raise a ValueError unless it is a list of a whole number of at least one for each stage."""
    is_list = isinstance(blocks, (list, tuple)) and len(blocks) == stages
    if not is_list or any(type(count) is not int or count < 1 for count in blocks):
        raise ValueError(
            f"blocks is {blocks!r}, but must be a list of {stages} whole numbers of at least 1, "
            f"as there are {stages} widths."
        )
