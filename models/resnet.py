"""Residual nets with pre-activation, for small images of any size."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional
from torch.nn.functional import relu

from models.common import check_flag, check_positive, check_probability, initialise
from models.registry import register


class StochasticDepth(nn.Module):
    """Omits the residuals of random samples in training; the identity in evaluation.

    Huang et al.: Deep Networks with Stochastic Depth, 2016, arXiv 1603.09382. They scale residuals
    down in evaluation; here those that stay are scaled up in training, to the same mean.

    Args:
        probability: of leaving out.
    """

    def __init__(self, probability: float) -> None:
        super().__init__()
        self.probability = probability

    def forward(self, residual: torch.Tensor) -> torch.Tensor:
        """Map (n, channels, height, width) to the same shape."""
        if not self.training or self.probability == 0.0:
            return residual
        # In float32: lower precision would round the factor.
        samples = torch.ones(len(residual), 1, 1, 1, device=residual.device)
        return (residual * functional.dropout(samples, self.probability)).to(residual.dtype)


class SqueezeExcitation(nn.Module):
    """Scales each channel by a number in (0, 1) that follows from the means of all channels.

    Hu et al.: Squeeze-and-Excitation Networks, 2018, arXiv 1709.01507, with its reduction to a
    16th of the channels, but to no fewer than 8.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        squeezed = max(channels // 16, 8)
        self.squeeze = nn.Linear(channels, squeezed)
        self.excite = nn.Linear(squeezed, channels)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Map (n, channels, height, width) to the same shape."""
        scale: torch.Tensor = self.excite(relu(self.squeeze(features.mean((2, 3)))))
        return features * scale.sigmoid()[:, :, None, None]


class Block(nn.Module):
    """Batch normalisation, ReLU and a 3x3 convolution, twice, added to the input.

    Where the shape changes, a 1x1 convolution of the first activation stands in for the input.
    Dropout is between the convolutions (Zagoruyko, Komodakis, 2016). Squeeze-and-excitation and
    stochastic depth act on what is added.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        stride: int,
        *,
        dropout: float,
        drop_path: float,
        squeeze_excitation: bool,
    ) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(in_channels)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(out_channels)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.scale = SqueezeExcitation(out_channels) if squeeze_excitation else nn.Identity()
        self.drop_path = StochasticDepth(drop_path)
        self.projection: nn.Module | None = None
        if stride != 1 or in_channels != out_channels:
            self.projection = nn.Conv2d(in_channels, out_channels, 1, stride, bias=False)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Map (n, in_channels, height, width) to (n, out_channels, height/stride, width/stride)."""
        activation = relu(self.norm1(features))
        shortcut = features if self.projection is None else self.projection(activation)
        residual = self.conv1(activation)
        residual = self.conv2(self.dropout(relu(self.norm2(residual))))
        total: torch.Tensor = shortcut + self.drop_path(self.scale(residual))
        return total


class ResidualNet(nn.Module):
    """A 3x3 convolution, three stages of blocks, global average pooling and a linear layer.

    The second and third stage halve the image and double the channels.

    Args:
        blocks: of each stage.
        stem_width: channels of the first convolution.
        width: channels of the first stage.
        dropout: in the blocks.
        drop_path: probability of leaving out the last block; it grows evenly from 0 at the stem.
        squeeze_excitation: in the blocks.
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
        drop_path: float,
        squeeze_excitation: bool,
    ) -> None:
        super().__init__()
        check_probability("drop_path", drop_path)
        check_flag("squeeze_excitation", squeeze_excitation)
        self.stem = nn.Conv2d(in_channels, stem_width, 3, padding=1, bias=False)
        layers: list[nn.Module] = []
        channels = stem_width
        for stage in range(3):
            for index in range(blocks):
                stride = 2 if stage > 0 and index == 0 else 1
                block = Block(
                    channels,
                    width * 2**stage,
                    stride,
                    dropout=dropout,
                    drop_path=drop_path * (len(layers) + 1) / (3 * blocks),
                    squeeze_excitation=squeeze_excitation,
                )
                layers.append(block)
                channels = width * 2**stage
        self.blocks = nn.Sequential(*layers)
        self.norm = nn.BatchNorm2d(channels)
        self.classifier = nn.Linear(channels, num_classes)
        initialise(self.stem)
        initialise(self.blocks)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return logits (n, num_classes) of images (n, channels, height, width)."""
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
        drop_path: largest probability of leaving out a block for a sample, in training; it grows
            evenly with the depth up to the last block.
        squeeze_excitation: whether each block scales its channels by what it sees in all of them.
    """

    def __init__(
        self,
        num_classes: int,
        in_channels: int,
        depth: int = 20,
        width: int = 16,
        drop_path: float = 0.0,
        squeeze_excitation: bool = False,
    ) -> None:
        blocks = _blocks(depth, outside_blocks=2)
        check_positive("width", width)
        super().__init__(
            num_classes,
            in_channels,
            blocks=blocks,
            stem_width=width,
            width=width,
            dropout=0.0,
            drop_path=drop_path,
            squeeze_excitation=squeeze_excitation,
        )


@register("wide_resnet")
class WideResNet(ResidualNet):
    """WRN-depth-widen_factor of Zagoruyko, Komodakis: Wide Residual Networks, 2016.

    Args:
        depth: convolutions, 6n + 4 for n blocks a stage, the three projections counted.
        widen_factor: channels of the first stage are 16 times as many.
        dropout: between the two convolutions of a block.
        drop_path, squeeze_excitation: as of PreActResNet.
    """

    def __init__(
        self,
        num_classes: int,
        in_channels: int,
        depth: int = 16,
        widen_factor: int = 4,
        dropout: float = 0.0,
        drop_path: float = 0.0,
        squeeze_excitation: bool = False,
    ) -> None:
        blocks = _blocks(depth, outside_blocks=4)
        check_positive("widen_factor", widen_factor)
        check_probability("dropout", dropout)
        super().__init__(
            num_classes,
            in_channels,
            blocks=blocks,
            stem_width=16,
            width=16 * widen_factor,
            dropout=dropout,
            drop_path=drop_path,
            squeeze_excitation=squeeze_excitation,
        )


def _blocks(depth: int, outside_blocks: int) -> int:
    """Return the number of blocks of each of the three stages; a block has two layers."""
    blocks, rest = divmod(depth - outside_blocks, 6) if type(depth) is int else (0, 0)
    if blocks < 1 or rest:
        fitting = ", ".join(str(6 * count + outside_blocks) for count in range(1, 5))
        raise ValueError(f"depth is {depth!r}, but must be 6n + {outside_blocks}: {fitting}, ...")
    return blocks
