"""The small fast net of the default recipe."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import nn

from models.common import check_flag, check_image_size, check_probability, check_widths, initialise
from models.registry import register

# Early pooling makes the net fast.
_POOLED = (0, 2)
_ACTIVATIONS: dict[str, type[nn.Module]] = {
    "gelu": nn.GELU,
    "hardswish": nn.Hardswish,
    "relu": nn.ReLU,
    "silu": nn.SiLU,
}


@register("quicknet")
class QuickNet(nn.Module):
    """A plain stack of 3x3 convolutions with global max pooling.

    Its ingredients (convolutions without bias, batch normalisation, GELU, and the maximum over the
    last map) are those of the small nets in Jordan: 94% on CIFAR-10 in 3.29 Seconds on a Single
    GPU, 2024, arXiv 2404.00498. Unlike there, pooling comes after the activation unless
    `pool_first` is true.

    Args:
        widths: channels of each convolution.
        dropout: before the linear layer.
        pooled: after which convolutions, counted from 0, 2x2 max pooling comes, and images need
            2 ** len(pooled) pixels a side; None: after the first and third, as far as widths go.
        activation: gelu, silu, hardswish or relu, the one that takes the most time on a CPU first;
            hardswish (Howard et al.: Searching for MobileNetV3, 2019) is near silu, and nearly as
            fast as relu.
        pool_first: whether 2x2 pooling comes before the normalisation, as there, which then has a
            quarter of the numbers, and so has the activation.
        residual: whether two convolutions that keep the width only change what goes into them: it
            is added to their result. In He et al.: Deep Residual Learning for Image Recognition,
            2015. At first they change nothing. Pooling comes after both.
    """

    def __init__(
        self,
        num_classes: int,
        in_channels: int,
        image_size: tuple[int, int],
        widths: Sequence[int] = (32, 64, 64, 128, 128),
        dropout: float = 0.0,
        pooled: Sequence[int] | None = None,
        activation: str = "gelu",
        pool_first: bool = False,
        residual: bool = False,
    ) -> None:
        super().__init__()
        check_widths(widths)
        check_probability("dropout", dropout)
        check_flag("pool_first", pool_first)
        check_flag("residual", residual)
        if not isinstance(activation, str) or activation not in _ACTIVATIONS:
            raise ValueError(
                f"activation is {activation!r}, but must be one of {', '.join(_ACTIVATIONS)}."
            )
        if pooled is None:
            pooled = [index for index in _POOLED if index < len(widths)]
        _check_pooled(pooled, len(widths))
        check_image_size(image_size, minimum=2 ** len(pooled))
        make_activation = _ACTIVATIONS[activation]
        layers: list[nn.Module] = []
        index = 0
        while index < len(widths):
            before, width = ([in_channels, *widths])[index : index + 2]
            if residual and index and list(widths[index : index + 2]) == [before] * 2:
                if index in pooled:
                    raise ValueError(
                        f"pooled has {index}, the first of two convolutions with one shortcut; it "
                        f"may have {index + 1}."
                    )
                layers.append(_Residual(width, make_activation))
                layers += [nn.MaxPool2d(2)] * (index + 1 in pooled)
                index += 2
                continue
            convolution = nn.Conv2d(before, width, 3, padding=1, bias=False)
            pool = [nn.MaxPool2d(2)] if index in pooled else []
            rest = [nn.BatchNorm2d(width), make_activation()]
            layers += [convolution, *pool, *rest] if pool_first else [convolution, *rest, *pool]
            index += 1
        self.features = nn.Sequential(*layers)
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(widths[-1], num_classes)
        initialise(self.features)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return logits (n, num_classes) of images (n, channels, height, width)."""
        features = self.features(images).amax((2, 3))
        logits: torch.Tensor = self.classifier(self.dropout(features))
        return logits


class _Residual(nn.Module):
    """Two convolutions, normalised, whose result is added to what goes in."""

    def __init__(self, width: int, make_activation: Callable[[], nn.Module]) -> None:
        super().__init__()
        self.convolution1 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(width)
        self.convolution2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(width)
        nn.init.zeros_(self.norm2.weight)
        self.activation = make_activation()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return maps of the same shape as `images`, (n, channels, height, width)."""
        changes = self.activation(self.norm1(self.convolution1(images)))
        maps: torch.Tensor = self.activation(images + self.norm2(self.convolution2(changes)))
        return maps


def _check_pooled(pooled: Sequence[int], convolutions: int) -> None:
    """Raise a ValueError unless it is a list of different convolutions, counted from 0."""
    is_list = isinstance(pooled, (list, tuple)) and all(type(index) is int for index in pooled)
    if not is_list or not set(pooled) <= set(range(convolutions)) or len(set(pooled)) < len(pooled):
        raise ValueError(
            f"pooled is {pooled!r}, but must be a list of different whole numbers from 0 to "
            f"{convolutions - 1}, as there are {convolutions} widths."
        )
