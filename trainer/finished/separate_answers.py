"""Classify images together, each with the bits that it would have among any others.

Kernels round differently for another number of images, and some for another place among them. So
small images always go through the model in blocks of one size, filled up where images are lacking,
once a trial has shown that on this machine the model's answer depends neither on the place in a
block nor on the other images in it. Otherwise, and where images are large, which gain nothing, each
goes alone.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

import torch

from trainer.config import plugins
from trainer.finished.trained_model import TrainedModel

_MOST_TOGETHER = 16
_PIXELS_TOGETHER = 2**14


@dataclass(frozen=True, eq=False)
class Classifier:
    """A trained model that answers a block of images at a time; threads may call it.

    Args:
        stored: the model, on its device.
        block_images: that go through it at once.
    """

    stored: TrainedModel
    block_images: int
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def probabilities(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return the probability of each class, as `TrainedModel.probabilities` does.

        Args:
            pixels: of at most a block of images, uint8 (n, channels, height, width).
        """
        count = len(pixels)
        if count < self.block_images:
            filling = pixels.new_zeros((self.block_images - count, *pixels.shape[1:]))
            pixels = torch.cat([pixels, filling])
        return self._ask(pixels)[:count]

    def _ask(self, pixels: torch.Tensor) -> torch.Tensor:
        device = self.stored.scaling.mean.device
        if device.type == "cpu" and plugins.is_built_in("model", self.stored.name):
            # OpenMP's number of threads is one of each thread.
            torch.set_num_threads(torch.get_num_threads())
            return self.stored.answer(pixels)
        with self._lock:  # a network of a user's may note things in its attributes in a pass
            return self.stored.probabilities(pixels)


def make_classifier(stored: TrainedModel) -> Classifier:
    """Find out how many images may go through a model at once, on its device."""
    height, width = stored.image_size
    count = min(_MOST_TOGETHER, _PIXELS_TOGETHER // (height * width))
    return Classifier(stored, count if count > 1 and _are_separate(stored, count) else 1)


def _are_separate(stored: TrainedModel, count: int) -> bool:
    """Return whether an image's answer is the same at every place of a block, among any others."""
    one, other = _noise(stored)
    # Each of the two is at every place once, among as many of itself as of the other.
    first = stored.probabilities(torch.stack([one, *[other] * (count - 1)]))
    second = stored.probabilities(torch.stack([other, *[one] * (count - 1)]))
    of_one, of_other = torch.cat([first[:1], second[1:]]), torch.cat([second[:1], first[1:]])
    are_equal = [bool((answers == answers[0]).all()) for answers in (of_one, of_other)]
    return all(are_equal)


def _noise(stored: TrainedModel) -> torch.Tensor:
    """Return two images that always are the same, uint8 (2, channels, height, width)."""
    shape = (2, stored.channels, *stored.image_size)
    steps = torch.arange(torch.Size(shape).numel())
    return (steps * steps * 2654435761 >> 16 & 255).to(torch.uint8).reshape(shape)
