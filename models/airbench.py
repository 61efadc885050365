"""The fast net of cifar10-airbench, for small colour images."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional

from models.common import check_flag, check_image_size, check_positive, check_widths
from models.registry import register

_PATCH_PIXELS = 2


class PatchWhitening(nn.Module):
    """Decorrelates 2x2 patches with fixed filters, and gives the result and its negative.

    Jordan (airbench, below) takes the eigenvectors of the training images' patches. Those of
    natural images are nearly the cosines of the discrete cosine transform, over the colours as over
    the pixels (Ahmed, Natarajan, Rao: Discrete Cosine Transform, 1974). So they are taken here, and
    a batch normalisation without weights brings each to unit variance: the weights need no data.

    Args:
        in_channels: of the images.
    """

    def __init__(self, in_channels: int) -> None:
        super().__init__()
        pixels, channels = _cosines(_PATCH_PIXELS), _cosines(in_channels)
        filters = torch.einsum("ac,bi,dj->abdcij", channels, pixels, pixels)
        filters = filters.reshape(-1, in_channels, _PATCH_PIXELS, _PATCH_PIXELS)
        self.register_buffer("filters", filters, persistent=False)
        # The epsilon keeps the noise of the weakest, the fine colours, from growing to unit size.
        self.norm = nn.BatchNorm2d(len(filters), eps=2e-3, affine=False)
        self.bias = nn.Parameter(torch.zeros(self.out_channels))

    @property
    def out_channels(self) -> int:
        """Channels of the result."""
        return 2 * self.norm.num_features

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Map (n, in_channels, height, width) to (n, out_channels, height - 1, width - 1)."""
        patches = self.norm(functional.conv2d(images, self.get_buffer("filters")))
        both = torch.cat([patches, -patches], 1)
        return both + self.bias.to(both.dtype)[:, None, None]


class Stage(nn.Module):
    """A convolution with 2x2 max pooling, and more convolutions around which a shortcut may lead.

    Batch normalisation and GELU follow each convolution. The first filters are those of the
    identity (airbench's Dirac initialisation).
    """

    def __init__(self, in_channels: int, width: int, convolutions: int, *, residual: bool) -> None:
        super().__init__()
        self.residual = residual
        inputs = [in_channels] + [width] * (convolutions - 1)
        self.convolutions = nn.ModuleList(
            nn.Conv2d(channels, width, 3, padding=1, bias=False) for channels in inputs
        )
        self.norms = nn.ModuleList(nn.BatchNorm2d(width) for _ in inputs)
        for convolution in self.convolutions:
            identity = convolution.get_parameter("weight")[: convolution.in_channels]
            nn.init.dirac_(identity)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Map (n, in_channels, height, width) to (n, width, height // 2, width // 2)."""
        features = functional.max_pool2d(self.convolutions[0](features), 2)
        pooled = features = functional.gelu(self.norms[0](features))
        last = len(self.convolutions) - 1
        for index in range(1, last + 1):
            features = self.norms[index](self.convolutions[index](features))
            if self.residual and index == last:
                features = features + pooled
            features = functional.gelu(features)
        return features


@register("airbench")
class Airbench(nn.Module):
    """Whitened patches, stages of convolutions, each half the size, and global max pooling.

    Jordan: 94% on CIFAR-10 in 3.29 Seconds on a Single GPU, 2024, arXiv 2404.00498: there with
    widths 64, 256, 256; its larger net for 96% has 128, 512, 512, three convolutions in each stage,
    and shortcuts.

    Args:
        widths: channels of each stage.
        convolutions: in each stage.
        residual: whether the pooled map of a stage is added to its last convolution's.
    """

    def __init__(
        self,
        num_classes: int,
        in_channels: int,
        image_size: tuple[int, int],
        widths: Sequence[int] = (64, 256, 256),
        convolutions: int = 2,
        residual: bool = False,
    ) -> None:
        super().__init__()
        check_widths(widths)
        check_positive("convolutions", convolutions)
        check_flag("residual", residual)
        check_image_size(image_size, minimum=2 ** len(widths) + 1)
        self.whitening = PatchWhitening(in_channels)
        inputs = [self.whitening.out_channels, *widths]
        self.stages = nn.Sequential(
            *(
                Stage(before, width, convolutions, residual=residual)
                for before, width in zip(inputs, widths, strict=False)
            )
        )
        self.classifier = nn.Linear(widths[-1], num_classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return logits (n, num_classes) of images (n, channels, height, width)."""
        features = self.stages(functional.gelu(self.whitening(images)))
        logits: torch.Tensor = self.classifier(features.amax((2, 3)))
        return logits


def _cosines(count: int) -> torch.Tensor:
    """Return the orthonormal discrete cosine transform of `count` numbers, a row each."""
    places = torch.arange(count, dtype=torch.float64)
    waves = torch.cos(math.pi / count * places[:, None] * (places + 0.5))
    waves[0] /= math.sqrt(2)
    return (waves * math.sqrt(2 / count)).float()
