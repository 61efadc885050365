"""What all ways but ours share: images in memory, a net, and the clock of a curve."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from contenders import task as contenders
from torch import nn

from race import RACES, Task
from trainer.data.dataset import ImageSet

EVALUATION_BATCH = 1000


def make(
    task: Task,
    batch_size: int,
    *,
    augment: bool = False,
    channels_last: bool = False,
    lab_net: bool = False,
) -> contenders.Parts:
    """Read the images and draw the net's first weights and the order of the images.

    Args:
        lab_net: whether it is the lab's also where the race has another.
    """
    race = RACES[task.race]
    parts = contenders.Parts(
        contenders.Task(
            model="lab_cnn" if lab_net else race.net,
            model_args={} if lab_net else dict(race.net_args),
            batch_size=batch_size,
            images=task.images,
            epochs=task.length(),
            threads=task.threads,
            folder=task.folder,
            data=task.data,
            root=task.root,
            seed=task.seed,
        )
    )
    if augment and race.crop:
        pad_images(parts, race.crop)
    if augment and race.mirror:
        parts.transform = functools.partial(crop_and_mirror, race.crop) if race.crop else mirror
    if channels_last:
        parts.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    torch.manual_seed(task.seed)
    return parts


def mirror(image: torch.Tensor) -> torch.Tensor:
    """Return an image (channels, height, width) or, half of the time, its mirror image."""
    return image.flip(-1) if torch.rand(1) < 0.5 else image


def pad_images(parts: contenders.Parts, crop: int) -> None:
    """Pad the images that are trained on with black pixels, once for all epochs."""
    parts.images = parts.scaling.apply(F.pad(parts.pixels, [crop] * 4))


def crop_and_mirror(crop: int, image: torch.Tensor) -> torch.Tensor:
    """Return a part of an image that has `crop` pixels around it, or its mirror image.

    It is what torchvision's `RandomCrop(32, padding=4)` and `RandomHorizontalFlip` do.
    """
    top, left = torch.randint(2 * crop + 1, (2,)).tolist()
    height, width = image.shape[1] - 2 * crop, image.shape[2] - 2 * crop
    return mirror(image[:, top : top + height, left : left + width])


class Curve:
    """Seconds of training without evaluations, and the accuracy on test, after each epoch.

    Attributes:
        points: [seconds, accuracy] of each epoch.
        within: the same of moments within epochs, for the picture alone.
    """

    def __init__(self) -> None:
        self.points: list[list[float]] = []
        self.within: list[list[float]] = []
        self._train_s = 0.0
        self._start_s = 0.0

    def begin(self) -> None:
        """Let the clock run: an epoch begins."""
        self._start_s = time.perf_counter()

    def end(self, accuracy: Callable[[], float]) -> None:
        """Stop the clock: an epoch is done; then measure the accuracy."""
        self._train_s += time.perf_counter() - self._start_s
        self.points.append([self._train_s, accuracy()])

    def callback(self, base: type, begin: str, end: str, accuracy: Callable[[], float]) -> Any:
        """Return a callback of a library.

        Args:
            base: the library's class of callbacks.
            begin: its method that is called before an epoch.
            end: its method that is called after an epoch.
        """
        methods = {
            begin: lambda *_, **__: self.begin(),
            end: lambda *_, **__: self.end(accuracy),
        }
        return type("CurveCallback", (base,), methods)()


@torch.no_grad()
def accuracy(net: nn.Module, parts: contenders.Parts) -> float:
    """Return the share of test images that a net classifies correctly; its mode stays."""
    was_training = net.training
    net.eval()
    found = share_right(lambda images: net(parts.scaling.apply(images)), parts.test)
    net.train(was_training)
    return found


def share_right(classify: Callable[[torch.Tensor], torch.Tensor], test: ImageSet) -> float:
    """Return the share of images whose class has the largest output of `classify`."""
    images, targets, right = test.images, test.targets, 0
    for start in range(0, len(targets), EVALUATION_BATCH):
        part = slice(start, start + EVALUATION_BATCH)
        right += int((classify(images[part]).argmax(1) == targets[part]).sum())
    return right / len(targets)
