"""Apply the list form of `data.augment`: named transforms with arguments, in the order given.

Each draws its own numbers, keyed also by its place in the list.
"""

from __future__ import annotations

from typing import Any

import torch

from trainer.config import augmentations
from trainer.data.augment.canvas import Canvas
from trainer.data.augment.draws import Draw
from trainer.data.augment.list_transforms import TABLE, draw_parts
from trainer.data.augment.user_augmentations import UserAugmentations


class ListForm:
    """A list of transforms, bound to a run.

    Args:
        policy: in the spelling of `augmentations.canonical`.
    """

    def __init__(self, policy: list[Any], seed: int) -> None:
        self.seed = seed
        self.entries = [augmentations.complete(entry, "data.augment") for entry in policy]
        own = [place for place, (name, _) in enumerate(self.entries) if name not in TABLE]
        names = [self.entries[place][0] for place in own]
        self.user_defined = UserAugmentations(names, seed, own)
        self.own = {place: self.user_defined.select(place) for place in own}

    def __call__(
        self, images: torch.Tensor, samples: torch.Tensor, epoch: int, *, are_boxes: bool
    ) -> torch.Tensor:
        """Transform images; see `Augmentation`."""
        if not len(images):  # on a rank that has no piece of a short step
            return images
        on_cpu = samples.cpu()
        canvas = Canvas(images)
        for place, (name, arguments) in enumerate(self.entries):
            if place in self.own:
                own = self.own[place]
                canvas.images = own(canvas.finish(), canvas.send(samples), epoch)
            elif not (name == "random_resized_crop" and are_boxes):
                TABLE[name](canvas, Draw(self.seed, epoch, on_cpu, place), **arguments)
        return canvas.finish()

    def draw_boxes(
        self, samples: torch.Tensor, epoch: int, sizes: torch.Tensor, aspect: float
    ) -> torch.Tensor | None:
        """Draw boxes of the original pictures; see `Augmentation`."""
        name, arguments = self.entries[0]
        if name != "random_resized_crop":
            return None
        sizes = sizes.double()
        draw = Draw(self.seed, epoch, samples, 0)
        sides, places = draw_parts(draw, **arguments, shapes=sizes[:, 1] / sizes[:, 0] / aspect)
        whole = sizes.flip(1)
        begin = places * (1 - sides) * whole
        return torch.cat([begin, begin + sides * whole], 1)
