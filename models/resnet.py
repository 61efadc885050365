"""Residual nets with pre-activation, for small images of any size."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.functional import relu

from models.common import check_dropout, check_positive, initialise
from models.registry import register


class Block(nn.Module):
    """Batch normalisation, ReLU and a 3x3 convolution, twice, added to the input.

    Where the shape changes, a 1x1 convolution of the first activation stands in for the input.
    Dropout is between the convolutions (Zagoruyko, Komodakis, 2016).
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int, dropout: float) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(in_channels)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(out_channels)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.projection: nn.Module | None = None
        if stride != 1 or in_channels != out_channels:
            self.projection = nn.Conv2d(in_channels, out_channels, 1, stride, bias=False)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """(n, in_channels, height, width) to (n, out_channels, height / stride, width / stride)."""
        activation = relu(self.norm1(features))
        shortcut = features if self.projection is None else self.projection(activation)
        residual = self.conv1(activation)
        residual = self.conv2(self.dropout(relu(self.norm2(residual))))
        total: torch.Tensor = shortcut + residual
        return total


class ResidualNet(nn.Module):
    """A 3x3 convolution, three stages of blocks, global average pooling and a linear layer.

    The second and third stage halve the image and double the channels.

    Args:
        blocks: of each stage.
        stem_width: channels of the first convolution.
        width: channels of the first stage.
        dropout: in the blocks.
    """

    def __init__(
        self,
        num_classes: int,
        in_channels: int,
        *,
        blocks: int,
        stem_width: int,
        width: int,
        dropout: float,
    ) -> None:
        super().__init__()
        self.stem = nn.Conv2d(in_channels, stem_width, 3, padding=1, bias=False)
        layers: list[nn.Module] = []
        channels = stem_width
        for stage in range(3):
            for index in range(blocks):
                stride = 2 if stage > 0 and index == 0 else 1
                layers.append(Block(channels, width * 2**stage, stride, dropout))
                channels = width * 2**stage
        self.blocks = nn.Sequential(*layers)
        self.norm = nn.BatchNorm2d(channels)
        self.classifier = nn.Linear(channels, num_classes)
        initialise(self.stem)
        initialise(self.blocks)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits (n, num_classes) of images (n, channels, height, width)."""
        features = relu(self.norm(self.blocks(self.stem(images))))
        # Not AdaptiveAvgPool2d, whose backward pass is not deterministic on CUDA.
        logits: torch.Tensor = self.classifier(features.mean((2, 3)))
        return logits


@register("preact_resnet")
class PreActResNet(ResidualNet):
    """Residual net of He et al.: Identity Mappings in Deep Residual Networks, 2016.

    Args:
        depth: layers with weights, 6n + 2 for n blocks a stage, projections not counted.
        width: channels of the first stage.
    """

    def __init__(
        self, num_classes: int, in_channels: int, depth: int = 20, width: int = 16
    ) -> None:
        blocks = _blocks(depth, outside_blocks=2)
        check_positive("width", width)
        super().__init__(
            num_classes, in_channels, blocks=blocks, stem_width=width, width=width, dropout=0.0
        )


@register("wide_resnet")
class WideResNet(ResidualNet):
    """WRN-depth-widen_factor of Zagoruyko, Komodakis: Wide Residual Networks, 2016.

    Args:
        depth: convolutions, 6n + 4 for n blocks a stage, the three projections counted.
        widen_factor: channels of the first stage are 16 times as many.
        dropout: between the two convolutions of a block.
    """

    def __init__(
        self,
        num_classes: int,
        in_channels: int,
        depth: int = 16,
        widen_factor: int = 4,
        dropout: float = 0.0,
    ) -> None:
        blocks = _blocks(depth, outside_blocks=4)
        check_positive("widen_factor", widen_factor)
        check_dropout(dropout)
        super().__init__(
            num_classes,
            in_channels,
            blocks=blocks,
            stem_width=16,
            width=16 * widen_factor,
            dropout=dropout,
        )


def _blocks(depth: int, outside_blocks: int) -> int:
    """Blocks of each of the three stages, each block two layers of the depth."""
    blocks, rest = divmod(depth - outside_blocks, 6) if type(depth) is int else (0, 0)
    if blocks < 1 or rest:
        fitting = ", ".join(str(6 * count + outside_blocks) for count in range(1, 5))
        raise ValueError(f"depth is {depth!r}, but must be 6n + {outside_blocks}: {fitting}, ...")
    return blocks
