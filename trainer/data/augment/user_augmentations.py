"""Users' augmentations, and whether they keep what a run promises.

Their numbers come from the stream `own augmentation`, keyed by epoch and sample, and in a list also
by the place in it.
"""

from __future__ import annotations

import copy

import torch

from trainer.base import seeding
from trainer.config import plugins
from trainer.config.plugins import Plugin

TRIED = 9
"""images at the start: more than fit into a vector of some types, and an odd number"""


class UserAugmentations:
    """Users' transforms bound to a run, applied one after the other.

    Args:
        places: of each in the list; None: they follow the short form, and draw together.
    """

    def __init__(self, names: list[str], seed: int, places: list[int] | None = None) -> None:
        self.places = places
        self.plugins = [plugins.find("augmentation", name) for name in names]
        self.counts = [plugin.numbers for plugin in self.plugins]
        self.seed = seed

    def __call__(self, images: torch.Tensor, samples: torch.Tensor, epoch: int) -> torch.Tensor:
        """Apply them; see `Augmentation`."""
        if not len(images):  # on a rank that has no piece of a short step
            return images
        for plugin, numbers in zip(self.plugins, self._draw(samples, epoch), strict=True):
            images = plugin.member(images, numbers).contiguous()
        return images

    def select(self, place: int) -> UserAugmentations:
        """Return the one at a place of the list."""
        assert self.places is not None
        one = copy.copy(self)
        index = self.places.index(place)
        one.places, one.plugins, one.counts = [place], [self.plugins[index]], [self.counts[index]]
        return one

    def check(self, images: torch.Tensor) -> None:
        """Try each on some images.

        Args:
            images: uint8 (n, channels, height, width), the first of the training split.

        Raises:
            UserError: it fails, returns other things than such images, or is not a function of
                each image and its numbers, so that the process count would change the run.
        """
        samples = torch.arange(len(images), device=images.device)
        for plugin, numbers in zip(self.plugins, self._draw(samples, 1), strict=True):
            whole = _try(plugin, images, numbers)
            if not torch.equal(whole, _try(plugin, images, numbers)):
                raise plugin.error(
                    "returns other images at a second call; whatever is random in it must come "
                    "from its numbers (numbers=... of @register_augmentation)"
                )
            cuts = [1, max(1, len(images) // 2 - 1)]
            parts = zip(images.tensor_split(cuts), numbers.tensor_split(cuts), strict=True)
            pieces = torch.cat([_try(plugin, *part) for part in parts if len(part[0])])
            if not torch.equal(whole, pieces):
                raise plugin.error(
                    "treats an image differently in a smaller batch; each image must be "
                    "transformed by itself, or the process count would change the run"
                )

    def _draw(self, samples: torch.Tensor, epoch: int) -> tuple[torch.Tensor, ...]:
        if self.places is not None:
            return tuple(
                seeding.uniform(self.seed, "own augmentation", epoch, samples, count, place)
                for count, place in zip(self.counts, self.places, strict=True)
            )
        count = sum(self.counts)
        drawn = seeding.uniform(self.seed, "own augmentation", epoch, samples, count)
        return torch.split(drawn, self.counts, 1)


def _try(plugin: Plugin, images: torch.Tensor, numbers: torch.Tensor) -> torch.Tensor:
    with plugin.explain_errors():
        result: object = plugin.member(images.clone(), numbers.clone())
    wanted, found = _describe(images), _describe(result)
    if found != wanted or not isinstance(result, torch.Tensor):
        raise plugin.error(f"must return images as it gets them, {wanted}, found {found}")
    return result.contiguous()


def _describe(value: object) -> str:
    if not isinstance(value, torch.Tensor):
        return type(value).__name__
    return f"{value.dtype} {tuple(value.shape)} on {value.device}"
