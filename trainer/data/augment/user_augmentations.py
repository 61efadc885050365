"""Augmentations of users' own, and whether they keep what a run promises.

Their numbers come from the stream `own augmentation`, keyed by epoch and sample.
"""

from __future__ import annotations

import torch

from trainer.base import seeding
from trainer.config import plugins
from trainer.config.plugins import Extension

TRIED = 9
"""images at the start: more than a vector holds of some types, and odd"""


class OwnAugmentations:
    """Users' transforms bound to a run, applied one after the other."""

    def __init__(self, names: list[str], seed: int) -> None:
        self.extensions = [plugins.find("augmentation", name) for name in names]
        self.counts = [extension.numbers for extension in self.extensions]
        self.seed = seed

    def __call__(self, images: torch.Tensor, samples: torch.Tensor, epoch: int) -> torch.Tensor:
        """As `Augmentation`."""
        if not len(images):  # of a rank without a share in a short step
            return images
        for extension, numbers in zip(self.extensions, self._draw(samples, epoch), strict=True):
            images = extension.member(images, numbers).contiguous()
        return images

    def check(self, images: torch.Tensor) -> None:
        """Try each on some images.

        Args:
            images: uint8 (n, channels, height, width), the first of the training split.

        Raises:
            UserError: it fails, returns no such images, or is no function of each image and its
                numbers alone, so that the process count would change the run.
        """
        samples = torch.arange(len(images), device=images.device)
        for extension, numbers in zip(self.extensions, self._draw(samples, 1), strict=True):
            whole = _try(extension, images, numbers)
            if not torch.equal(whole, _try(extension, images, numbers)):
                raise plugins.wrong(
                    extension,
                    "returns other images at a second call; whatever is random in it must come "
                    "from its numbers (numbers=... of @register_augmentation)",
                )
            cuts = [1, max(1, len(images) // 2 - 1)]
            parts = zip(images.tensor_split(cuts), numbers.tensor_split(cuts), strict=True)
            pieces = torch.cat([_try(extension, *part) for part in parts if len(part[0])])
            if not torch.equal(whole, pieces):
                raise plugins.wrong(
                    extension,
                    "treats an image otherwise in a smaller batch; each image must be transformed "
                    "by itself, or the process count would change the run",
                )

    def _draw(self, samples: torch.Tensor, epoch: int) -> tuple[torch.Tensor, ...]:
        count = sum(self.counts)
        drawn = seeding.uniform(self.seed, "own augmentation", epoch, samples, count)
        return torch.split(drawn, self.counts, 1)


def _try(extension: Extension, images: torch.Tensor, numbers: torch.Tensor) -> torch.Tensor:
    with plugins.running(extension):
        result: object = extension.member(images.clone(), numbers.clone())
    wanted, found = _kind(images), _kind(result)
    if found != wanted or not isinstance(result, torch.Tensor):
        raise plugins.wrong(extension, f"must return images as it gets them, {wanted}, "
                               f"found {found}")  # fmt: skip
    return result.contiguous()


def _kind(value: object) -> str:
    if not isinstance(value, torch.Tensor):
        return type(value).__name__
    return f"{value.dtype} {tuple(value.shape)} on {value.device}"
