"""EfficientNet-Lite: small nets of depthwise convolutions, good at transfer and fast on CPUs.

Tan, Le: EfficientNet, Rethinking Model Scaling for Convolutional Neural Networks, ICML 2019, arXiv
1905.11946. Lite is its authors' variant without squeeze and excitation and with ReLU6
(github.com/tensorflow/tpu, models/official/efficientnet/lite). Parameters have the names that timm
gives them, so weights of its `tf_efficientnet_lite0` to `4` fit as they are.
"""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import nn
from torch.nn.functional import pad, relu6

from models.common import check_probability, initialise
from models.depthwise import DepthwiseConv2d
from models.registry import register
from models.resnet import StochasticDepth

_STEM_WIDTH, _FEATURES = 32, 1280
"""the same for every size of net"""
_EPSILON = 1e-3
"""of batch normalisation, as its authors have it"""
# Kernel, stride of the first block, factor of expansion, width and blocks of each stage.
_STAGES = (
    (3, 1, 1, 16, 1),
    (3, 2, 6, 24, 2),
    (5, 2, 6, 40, 2),
    (3, 2, 6, 80, 3),
    (5, 1, 6, 112, 3),
    (5, 2, 6, 192, 4),
    (3, 1, 6, 320, 1),
)

# What the package efficientnet_pytorch calls the parts.
_OUTER_NAMES = {
    "_conv_stem": "conv_stem",
    "_bn0": "bn1",
    "_conv_head": "conv_head",
    "_bn1": "bn2",
    "_fc": "classifier",
}
_SEPARABLE_NAMES = {
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn1",
    "_project_conv": "conv_pw",
    "_bn2": "bn2",
}
_RESIDUAL_NAMES = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}


def pad_same(images: torch.Tensor, kernel_size: int) -> torch.Tensor:
    """Pad images for a convolution of stride two as TensorFlow's `SAME`: an even side only behind.

    Of two pixels the second is then in the middle of a window, where a padding on both sides would
    have the first; published weights were trained with it.
    """
    missing = (max(kernel_size - 2 + side % 2, 0) for side in images.shape[2:])
    height, width = ((pixels // 2, -(-pixels // 2)) for pixels in missing)
    return pad(images, (*width, *height))


class SeparableBlock(nn.Module):
    """A depthwise convolution and a 1x1 convolution; the first block of all."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int) -> None:
        super().__init__()
        self.conv_dw = DepthwiseConv2d(in_channels, kernel_size, padding=kernel_size // 2)
        self.bn1 = _norm(in_channels)
        self.conv_pw = nn.Conv2d(in_channels, out_channels, 1, bias=False)
        self.bn2 = _norm(out_channels)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Map (n, in_channels, height, width) to (n, out_channels, height, width)."""
        features = relu6(self.bn1(self.conv_dw(features)), inplace=True)
        normalized: torch.Tensor = self.bn2(self.conv_pw(features))
        return normalized


class InvertedResidual(nn.Module):
    """A 1x1 convolution to more channels, a depthwise one, and a 1x1 one back to few.

    The result is added to the input if it has its shape.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int,
        *,
        expansion: int,
        drop_path: float,
    ) -> None:
        super().__init__()
        width = expansion * in_channels
        self.conv_pw = nn.Conv2d(in_channels, width, 1, bias=False)
        self.bn1 = _norm(width)
        self.conv_dw = DepthwiseConv2d(
            width, kernel_size, stride=stride, padding=kernel_size // 2 if stride == 1 else 0
        )
        self.bn2 = _norm(width)
        self.conv_pwl = nn.Conv2d(width, out_channels, 1, bias=False)
        self.bn3 = _norm(out_channels)
        self.drop_path = StochasticDepth(drop_path)
        self.halves = stride == 2
        self.is_residual = stride == 1 and in_channels == out_channels

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Map (n, in_channels, height, width) to (n, out_channels, height/stride, width/stride)."""
        inner = relu6(self.bn1(self.conv_pw(features)), inplace=True)
        if self.halves:
            inner = pad_same(inner, self.conv_dw.kernel_size[0])
        inner = relu6(self.bn2(self.conv_dw(inner)), inplace=True)
        outer: torch.Tensor = self.bn3(self.conv_pwl(inner))
        if self.is_residual:
            outer = features + self.drop_path(outer)
        return outer


class EfficientNetLite(nn.Module):
    """Stem, seven stages of blocks, 1x1 convolution, global average pooling, a linear layer.

    Args:
        dropout: before the linear layer.
        drop_path: probability of leaving out the last residual block; it grows evenly from 0 at
            the stem.
    """

    width_factor: ClassVar[float]
    """of the stages' widths, which are rounded to multiples of eight"""
    depth_factor: ClassVar[float]
    """of the blocks of the stages between the first and the last, rounded up"""

    def __init__(
        self, num_classes: int, in_channels: int, dropout: float = 0.2, drop_path: float = 0.0
    ) -> None:
        super().__init__()
        check_probability("dropout", dropout)
        check_probability("drop_path", drop_path)
        self.conv_stem = nn.Conv2d(in_channels, _STEM_WIDTH, 3, stride=2, bias=False)
        self.bn1 = _norm(_STEM_WIDTH)
        counts = [self._blocks_of(stage) for stage in range(len(_STAGES))]
        stages: list[nn.Module] = []
        channels, made = _STEM_WIDTH, 0
        for (kernel_size, first_stride, expansion, width, _), count in zip(
            _STAGES, counts, strict=True
        ):
            blocks: list[nn.Module] = []
            out_channels = _round_width(width * self.width_factor)
            for stride in (first_stride, *[1] * (count - 1)):
                if expansion == 1:
                    blocks.append(SeparableBlock(channels, out_channels, kernel_size))
                else:
                    block = InvertedResidual(
                        channels,
                        out_channels,
                        kernel_size,
                        stride,
                        expansion=expansion,
                        drop_path=drop_path * made / (sum(counts) - 1),
                    )
                    blocks.append(block)
                channels, made = out_channels, made + 1
            stages.append(nn.Sequential(*blocks))
        self.blocks = nn.Sequential(*stages)
        self.conv_head = nn.Conv2d(channels, _FEATURES, 1, bias=False)
        self.bn2 = _norm(_FEATURES)
        initialise(self)
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(_FEATURES, num_classes)

    @classmethod
    def rename(cls, name: str) -> str:
        """Translate a name of the package efficientnet_pytorch, which counts blocks throughout.

        Args:
            name: of a parameter or buffer, such as `_blocks.1._bn0.weight`.

        Raises:
            ValueError: it has no such name.
        """
        top, *rest = name.split(".")
        if top != "_blocks":
            if top not in _OUTER_NAMES:
                raise ValueError(f"has {name}, which is no part of {cls.__name__}")
            return ".".join([_OUTER_NAMES[top], *rest])
        number, part, *rest = rest
        stage, place = 0, int(number)
        while place >= cls._blocks_of(stage):
            place -= cls._blocks_of(stage)
            stage += 1
        inner = _SEPARABLE_NAMES if stage == 0 else _RESIDUAL_NAMES
        return ".".join(["blocks", str(stage), str(place), inner[part], *rest])

    @classmethod
    def _blocks_of(cls, stage: int) -> int:
        count = _STAGES[stage][-1]
        is_fixed = stage in (0, len(_STAGES) - 1)
        return count if is_fixed else math.ceil(count * cls.depth_factor)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return logits (n, num_classes) of images (n, channels, height, width)."""
        stem = self.bn1(self.conv_stem(pad_same(images, 3)))
        features = self.blocks(relu6(stem, inplace=True))
        features = relu6(self.bn2(self.conv_head(features)), inplace=True)
        # Not AdaptiveAvgPool2d, whose backward pass is not deterministic on CUDA.
        logits: torch.Tensor = self.classifier(self.dropout(features.mean((2, 3))))
        return logits


@register("efficientnet_lite0")
class EfficientNetLite0(EfficientNetLite):
    """The smallest, for 224 pixels; 4.7 million parameters with ImageNet's 1,000 classes."""

    width_factor, depth_factor = 1.0, 1.0


@register("efficientnet_lite1")
class EfficientNetLite1(EfficientNetLite):
    """For 240 pixels; 5.4 million parameters."""

    width_factor, depth_factor = 1.0, 1.1


@register("efficientnet_lite2")
class EfficientNetLite2(EfficientNetLite):
    """For 260 pixels; 6.1 million parameters."""

    width_factor, depth_factor = 1.1, 1.2


@register("efficientnet_lite3")
class EfficientNetLite3(EfficientNetLite):
    """For 280 pixels; 8.2 million parameters."""

    width_factor, depth_factor = 1.2, 1.4


@register("efficientnet_lite4")
class EfficientNetLite4(EfficientNetLite):
    """For 300 pixels; 13.0 million parameters."""

    width_factor, depth_factor = 1.4, 1.8


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=_EPSILON)


def _round_width(width: float) -> int:
    """Return the nearest multiple of eight that is at least nine tenths of a width."""
    rounded = max(8, int(width + 4) // 8 * 8)
    return rounded if rounded >= 0.9 * width else rounded + 8
