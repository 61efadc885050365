"""Random transforms of a batch of images, each a pure function of the images and of its numbers.

The numbers come from the stream `augmentation`, keyed by epoch and sample: a sample is transformed
in the same way in whatever batch, process or order it is drawn. Images are uint8 before scaling,
so that what is moved in from outside is black and no arithmetic rounds.
"""

from __future__ import annotations

import torch
from torch.nn.functional import pad

from trainer import seeding

SHIFT_PIXELS = 2
CUTOUT_PIXELS = 8

# The transforms of each policy. flip: half of the images; shift: up to SHIFT_PIXELS either way.
POLICIES: dict[str, frozenset[str]] = {
    "none": frozenset(),
    "shift": frozenset({"shift"}),
    "flip_shift": frozenset({"flip", "shift"}),
    "flip_shift_cutout": frozenset({"flip", "shift", "cutout"}),
}


def flip(images: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
    """Mirror the chosen images left to right.

    Args:
        images: (n, channels, height, width).
        chosen: bool, (n,).
    """
    # Copying whole images is several times as fast on a CPU as choosing pixel by pixel.
    both = torch.cat([images, images.flip(3)])
    samples = torch.arange(len(images), device=images.device)
    return both.index_select(0, samples + chosen * len(images))


def shift(images: torch.Tensor, down: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """Move each image by whole pixels; zeros come in from outside.

    Args:
        images: (n, channels, height, width).
        down: pixels that each image moves down, at most SHIFT_PIXELS, int64, (n,); negative: up.
        right: likewise to the right.
    """
    count, channels, height, width = images.shape
    if not count:
        return images
    most = SHIFT_PIXELS
    # In an image with a border, the rows of a shifted one follow each other at a fixed distance.
    padded = pad(images, (most, most, most, most + 1))
    plane_pixels, row_pixels = padded[0, 0].numel(), padded.shape[3]
    windows = padded.flatten().unfold(0, height * row_pixels, 1)
    planes = torch.arange(count * channels, device=images.device).view(count, channels)
    starts = planes * plane_pixels + ((most - down) * row_pixels + most - right)[:, None]
    moved = windows.index_select(0, starts.flatten())
    return moved.view(count, channels, height, row_pixels)[..., :width]


def cutout(images: torch.Tensor, top: torch.Tensor, left: torch.Tensor, size: int) -> torch.Tensor:
    """Blacken a square in each image (DeVries, Taylor: Improved Regularization of Convolutional
    Neural Networks with Cutout, 2017).

    Args:
        images: (n, channels, height, width).
        top: first row of the square, int64, (n,); the square may reach beyond the image.
        left: its first column.
        size: its side in pixels.
    """
    rows = torch.arange(images.shape[2], device=images.device) - top[:, None]
    columns = torch.arange(images.shape[3], device=images.device) - left[:, None]
    outside = ((rows < 0) | (rows >= size))[:, :, None]
    outside = outside | ((columns < 0) | (columns >= size))[:, None, :]
    return images * outside[:, None]


class Augmentation:
    """A policy bound to a run: images of an epoch in, transformed images out."""

    def __init__(self, policy: str, seed: int) -> None:
        self.transforms = POLICIES[policy]
        self.seed = seed

    def __call__(self, images: torch.Tensor, samples: torch.Tensor, epoch: int) -> torch.Tensor:
        """Transform images.

        Args:
            images: uint8, (n, channels, height, width).
            samples: their indices in the training split, int64, (n,), on the same device.
            epoch: from 1.
        """
        if not self.transforms:
            return images
        numbers = seeding.uniform(self.seed, "augmentation", epoch, samples, count=5)
        if "flip" in self.transforms:
            images = flip(images, numbers[:, 0] < 0.5)
        if "shift" in self.transforms:
            pixels = (numbers[:, 1:3] * (2 * SHIFT_PIXELS + 1)).long() - SHIFT_PIXELS
            images = shift(images, pixels[:, 0], pixels[:, 1])
        if "cutout" in self.transforms:
            height, width = images.shape[2:]
            top = (numbers[:, 3] * height).long() - CUTOUT_PIXELS // 2
            left = (numbers[:, 4] * width).long() - CUTOUT_PIXELS // 2
            images = cutout(images, top, left, CUTOUT_PIXELS)
        return images
