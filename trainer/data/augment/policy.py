"""The policy of a run: which random transforms its training images get.

The numbers come from the stream `augmentation`, keyed by epoch and sample: a sample is transformed
in the same way in whatever batch, process or order it is drawn.
"""

from __future__ import annotations

import math

import torch

from trainer.base import seeding
from trainer.config.schema import own_augmentations_of, transforms_of
from trainer.data.augment import transforms
from trainer.data.augment.user_augmentations import UserAugmentations

SLOTS = {
    "flip": slice(0, 1),
    "shift": slice(1, 3),
    "cutout": slice(3, 5),
    "rotate": slice(5, 6),
    "crop": slice(6, 10),
    "erase": slice(10, 18),
}
"""which of a sample's numbers a transform reads; a change of it changes the runs that have it, so
that checkpoints need another FORMAT_VERSION"""

NUMBERS = 24
"""drawn for a sample, some of them free for more transforms; a change of it changes every run"""

CUTOUT_PIXELS = 8
ROTATE_DEGREES = 15
CROP_SMALLEST_AREA = 0.6
CROP_LARGEST_ASPECT = 4 / 3
ERASE_PROBABILITY = 0.5
ERASE_AREAS = (0.02, 0.33)
ERASE_ASPECTS = (0.3, 3.3)


class Augmentation:
    """A policy bound to a run: images of an epoch in, transformed images out."""

    def __init__(self, policy: str, seed: int) -> None:
        self.transforms = transforms_of(policy)
        self.own = UserAugmentations(own_augmentations_of(policy), seed)
        self.seed = seed

    def __call__(self, images: torch.Tensor, samples: torch.Tensor, epoch: int) -> torch.Tensor:
        """Transform images.

        Args:
            images: uint8, (n, channels, height, width), with 1 or 3 channels.
            samples: their indices in the training split, int64, (n,), on the same device.
            epoch: from 1.
        """
        if self.transforms:
            images = self._transform(images, samples, epoch)
        return self.own(images, samples, epoch) if self.own.plugins else images

    def _transform(self, images: torch.Tensor, samples: torch.Tensor, epoch: int) -> torch.Tensor:
        numbers = seeding.uniform(self.seed, "augmentation", epoch, samples, count=NUMBERS)
        drawn = {name: numbers[:, SLOTS[name]] for name in self.transforms}
        height, width = images.shape[2:]
        if "flip" in drawn:
            images = transforms.flip(images, drawn["flip"][:, 0] < 0.5)
        maps = _affine_maps(drawn, height, width)
        if maps is not None:
            images = transforms.resample(images, maps)
        if "shift" in drawn:
            most = transforms.SHIFT_PIXELS
            pixels = (drawn["shift"] * (2 * most + 1)).long() - most
            images = transforms.shift(images, pixels[:, 0], pixels[:, 1])
        if "cutout" in drawn:
            top = (drawn["cutout"][:, 0] * height).long() - CUTOUT_PIXELS // 2
            left = (drawn["cutout"][:, 1] * width).long() - CUTOUT_PIXELS // 2
            images = transforms.cutout(images, top, left, CUTOUT_PIXELS)
        if "erase" in drawn:
            images = _erase(images, drawn["erase"])
        return images


def _affine_maps(drawn: dict[str, torch.Tensor], height: int, width: int) -> torch.Tensor | None:
    """Rotation, and then crop, as one map; None where the policy has neither."""
    maps = None
    if "rotate" in drawn:
        maps = transforms.rotation(_tangents(drawn["rotate"][:, 0]), height, width)
    if "crop" in drawn:
        sides = _crop_sides(drawn["crop"][:, 0], drawn["crop"][:, 1])
        crops = transforms.crop(sides, drawn["crop"][:, 2:], height, width)
        maps = crops if maps is None else transforms.compose(maps, crops)
    return maps


def _tangents(numbers: torch.Tensor) -> torch.Tensor:
    """Tangents of half the angles; so near zero they are as evenly spread as the angles."""
    return (2 * numbers - 1) * math.tan(math.radians(ROTATE_DEGREES / 2))


def _crop_sides(size: torch.Tensor, aspect: torch.Tensor) -> torch.Tensor:
    """Width and height of a part, as shares of the image's: (n, 2).

    The aspect ratio is relative to the image's own, as the part is stretched to its shape. A side
    that would be longer than the image's is cut to it, which keeps area and aspect in their ranges.
    """
    areas = 1 - (1 - CROP_SMALLEST_AREA) * size
    signed = 2 * aspect - 1
    wide = 1 + (CROP_LARGEST_ASPECT - 1) * signed.abs()
    # Equally often wide and high.
    aspects = torch.where(signed < 0, 1 / wide, wide)
    return torch.stack([areas * aspects, areas / aspects], 1).sqrt().clamp(max=1)


def _erase(images: torch.Tensor, numbers: torch.Tensor) -> torch.Tensor:
    """Random erasing (Zhong, Kang, Zheng, Li, Yang: Random Erasing Data Augmentation, AAAI 2020).

    There a rectangle that does not fit is drawn again; here its sides are cut to the image's, so
    that it is a function of few numbers. It has one random level for each channel.
    """
    channels, height, width = images.shape[1:]
    chosen, area, aspect, top, left = numbers[:, :5].unbind(1)
    pixels = _between(area, ERASE_AREAS) * (height * width)
    ratio = _between(aspect, ERASE_ASPECTS)
    heights = (pixels * ratio).sqrt().round().clamp(1, height)
    widths = (pixels / ratio).sqrt().round().clamp(1, width)
    erased = transforms.rectangles(
        images.shape,
        (top * (height - heights + 1)).long(),
        (left * (width - widths + 1)).long(),
        heights * (chosen < ERASE_PROBABILITY),
        widths,
    )
    levels = (numbers[:, 5 : 5 + channels] * 256).to(torch.uint8)
    return transforms.erase(images, erased, levels)


def _between(numbers: torch.Tensor, bounds: tuple[float, float]) -> torch.Tensor:
    """Numbers in [0, 1) moved to the range."""
    least, most = bounds
    return least + (most - least) * numbers
