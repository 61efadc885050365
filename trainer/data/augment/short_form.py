"""Apply the short form of `data.augment`: transforms of fixed strength, in a fixed order.

For small images, with sizes in pixels. What is new goes into the list form.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch

from trainer.base import seeding
from trainer.base.portable_math import square_root
from trainer.config.augmentations import own_augmentations_of, transforms_of
from trainer.data.augment import transforms
from trainer.data.augment.draws import between
from trainer.data.augment.user_augmentations import UserAugmentations

NUMBERS = 24
"""drawn for each sample, some of them free for more transforms; a change of it changes every run"""

CUTOUT_PIXELS = 8
ROTATE_DEGREES = 15
CROP_SMALLEST_AREA = 0.6
CROP_LARGEST_ASPECT = 4 / 3
ERASE_PROBABILITY = 0.5
ERASE_AREAS = (0.02, 0.33)
ERASE_ASPECTS = (0.3, 3.3)


class ShortForm:
    """A policy in one word, bound to a run."""

    def __init__(self, policy: str, seed: int) -> None:
        names = transforms_of(policy)
        self.transforms = [transform for name, transform in TABLE.items() if name in names]
        self.user_defined = UserAugmentations(own_augmentations_of(policy), seed)
        self.seed = seed

    def __call__(self, images: torch.Tensor, samples: torch.Tensor, epoch: int) -> torch.Tensor:
        """Transform images; see `Augmentation`."""
        samples = samples.to(images.device, non_blocking=True)
        if self.transforms:
            images = self._transform(images, samples, epoch)
        return self.user_defined(images, samples, epoch) if self.user_defined.plugins else images

    def _transform(self, images: torch.Tensor, samples: torch.Tensor, epoch: int) -> torch.Tensor:
        numbers = seeding.uniform(self.seed, "augmentation", epoch, samples, count=NUMBERS)
        groups = itertools.groupby(self.transforms, lambda transform: transform.is_affine)
        for is_affine, group in groups:
            if is_affine:  # resampled once, as each time blurs
                matrices = (each.function(images, numbers[:, each.columns]) for each in group)
                images = transforms.resample(images, functools.reduce(transforms.compose, matrices))
            else:
                for each in group:
                    images = each.function(images, numbers[:, each.columns])
        return images


def _flip(images: torch.Tensor, numbers: torch.Tensor) -> torch.Tensor:
    return transforms.flip(images, numbers[:, 0] < 0.5)


def _rotate(images: torch.Tensor, numbers: torch.Tensor) -> torch.Tensor:
    # Tangents of half the angles: so near zero they are as evenly spread as the angles.
    tangents = (2 * numbers[:, 0] - 1) * math.tan(math.radians(ROTATE_DEGREES / 2))
    return transforms.rotation(tangents, *images.shape[2:])


def _crop(images: torch.Tensor, numbers: torch.Tensor) -> torch.Tensor:
    """Enlarge a part of the image to the whole.

    The aspect ratio is relative to the image's own, as the part is stretched to its shape. A side
    that would be longer than the image's is cut to it, which keeps area and aspect in their ranges.
    """
    area, aspect = numbers[:, :2].unbind(1)
    areas = 1 - (1 - CROP_SMALLEST_AREA) * area
    signed = 2 * aspect - 1
    wide = 1 + (CROP_LARGEST_ASPECT - 1) * signed.abs()
    # Equally often wide and high.
    aspects = torch.where(signed < 0, 1 / wide, wide)
    sides = square_root(torch.stack([areas * aspects, areas / aspects], 1)).clamp(max=1)
    return transforms.crop(sides, numbers[:, 2:], *images.shape[2:])


def _shift(images: torch.Tensor, numbers: torch.Tensor) -> torch.Tensor:
    most = transforms.SHIFT_PIXELS
    down, right = ((numbers * (2 * most + 1)).long() - most).unbind(1)
    return transforms.shift(images, down, right)


def _cutout(images: torch.Tensor, numbers: torch.Tensor) -> torch.Tensor:
    height, width = images.shape[2:]
    top = (numbers[:, 0] * height).long() - CUTOUT_PIXELS // 2
    left = (numbers[:, 1] * width).long() - CUTOUT_PIXELS // 2
    return transforms.cutout(images, top, left, CUTOUT_PIXELS)


def _erase(images: torch.Tensor, numbers: torch.Tensor) -> torch.Tensor:
    """Random erasing (Zhong, Kang, Zheng, Li, Yang: Random Erasing Data Augmentation, AAAI 2020).

    There a rectangle that does not fit is drawn again; here its sides are cut to the image's, so
    that it is a function of few numbers. It has one random level for each channel.
    """
    channels, height, width = images.shape[1:]
    chosen, area, aspect, top, left = numbers[:, :5].unbind(1)
    pixels = between(area, ERASE_AREAS) * (height * width)
    ratio = between(aspect, ERASE_ASPECTS)
    heights = square_root(pixels * ratio).round().clamp(1, height)
    widths = square_root(pixels / ratio).round().clamp(1, width)
    erased = transforms.rectangles(
        images.shape,
        (top * (height - heights + 1)).long(),
        (left * (width - widths + 1)).long(),
        heights * (chosen < ERASE_PROBABILITY),
        widths,
    )
    levels = (numbers[:, 5 : 5 + channels] * 256).to(torch.uint8)
    return transforms.erase(images, erased, levels)


@dataclass(frozen=True)
class Transform:
    """A row of the table.

    Args:
        columns: the random numbers of a sample that it reads; a change changes the runs that have
            it, so that checkpoints need another FORMAT_VERSION.
        function: of images and their numbers, (n, columns); returns images or, if it is affine,
            matrices for `transforms.resample`.
    """

    columns: slice
    function: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
    is_affine: bool = False


TABLE = {
    "flip": Transform(slice(0, 1), _flip),
    "rotate": Transform(slice(5, 6), _rotate, is_affine=True),
    "crop": Transform(slice(6, 10), _crop, is_affine=True),
    "shift": Transform(slice(1, 3), _shift),
    "cutout": Transform(slice(3, 5), _cutout),
    "erase": Transform(slice(10, 18), _erase),
}
"""in the order in which they are applied, whatever the order in the policy"""
