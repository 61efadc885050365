"""Augment the training images of a run, as `data.augment` says.

The numbers come from the stream `augmentation`, keyed by epoch and sample: a sample is transformed
in the same way in whatever batch, process or order it is drawn.
"""

from __future__ import annotations

from typing import Any

import torch

from trainer.base.errors import UserError
from trainer.config import augmentations
from trainer.data.augment.list_form import ListForm
from trainer.data.augment.short_form import ShortForm

_OF_COLOURS = ("colour_jitter", "grey", "trivial_augment_wide", "rand_augment", "aug_mix")
"""transforms that change colours, or greys as if they were"""


def check_channels(policy: str | list[Any], channels: int) -> None:
    """Make sure that images have the colours that a policy changes.

    Raises:
        UserError: names the first transform that is for grey images and those of three colours.
    """
    if channels in (1, 3) or not isinstance(policy, list):
        return
    for entry in policy:
        name, _ = augmentations.complete(entry, "data.augment")
        if name in _OF_COLOURS:
            raise UserError(
                f"data.augment: {name} is for grey images and those of red, green and blue, and "
                f"these have {channels} channels; leave it out"
            )


class Augmentation:
    """A policy bound to a run: images of an epoch in, transformed images out."""

    def __init__(self, policy: str | list[Any], seed: int) -> None:
        self._form = ListForm(policy, seed) if isinstance(policy, list) else ShortForm(policy, seed)
        self.user_defined = self._form.user_defined

    def __call__(
        self, images: torch.Tensor, samples: torch.Tensor, epoch: int, *, are_boxes: bool = False
    ) -> torch.Tensor:
        """Transform images.

        Args:
            images: uint8, (n, channels, height, width).
            samples: their indices in the training split, int64, (n,); on the CPU they save a list
                of transforms a wait for the device.
            epoch: from 1.
            are_boxes: whether they were cut out by `draw_boxes` already.
        """
        if isinstance(self._form, ListForm):
            return self._form(images, samples, epoch, are_boxes=are_boxes)
        return self._form(images, samples, epoch)

    def draw_boxes(
        self, samples: torch.Tensor, epoch: int, sizes: torch.Tensor, aspect: float = 1.0
    ) -> torch.Tensor | None:
        """Draw which box of each original picture an epoch trains on.

        Args:
            samples: indices in the training split, int64, (n,), on the CPU.
            epoch: from 1.
            sizes: height and width of each picture in pixels, integers, (n, 2).
            aspect: width by height of the images that the boxes become; a box of this shape is
                not distorted.

        Returns:
            Left, top, right and bottom in pixels, fractions of pixels too, float64, (n, 4); None
            if the policy has no `random_resized_crop`.
        """
        if not isinstance(self._form, ListForm):
            return None
        return self._form.draw_boxes(samples, epoch, sizes, aspect)
