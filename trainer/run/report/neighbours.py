"""Find the training images that a network takes to be nearest to others."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

from trainer.base import seeding
from trainer.base.errors import UserError
from trainer.data.dataset import ImageSet
from trainer.data.scaling import Scaling
from trainer.network.buffers_in_passes import preserve_state
from trainer.training import features

NEAREST = 3
"""training images beside each mistake"""
LIMIT_S = 3.0
"""how long training images are looked at; a block of them is always"""
BLOCK_SAMPLES = 32
MOST_IMAGES = 100_000
"""that are looked at, however fast that is"""
_GOLDEN_RATIO = 0.6180339887498949


@dataclass(frozen=True, eq=False)
class Neighbours:
    """Training images that are nearest to some images, the nearest first.

    Args:
        images: uint8 (n, k, height, width) or (n, k, height, width, 3).
        targets: their classes, int64 (n, k).
        cosines: of the angles between the features, float32 (n, k).
        looked_at: how many training images these were chosen from, evenly spread over all.
        training: how many there are.
    """

    images: npt.NDArray[np.uint8]
    targets: npt.NDArray[np.int64]
    cosines: npt.NDArray[np.float32]
    looked_at: int
    training: int


@torch.no_grad()
def find(
    model: nn.Module,
    classes: int,
    train: ImageSet,
    test: ImageSet,
    asked: npt.NDArray[np.int64],
    scaling: Scaling,
    device: torch.device,
) -> Neighbours | None:
    """Find the training images nearest to some test images, in about LIMIT_S seconds.

    Near is what points the same way: the cosine of the angle between features counts, which are
    what goes into the network's head.

    Args:
        model: on `device`; its mode and its buffers are restored.
        asked: positions of test images, int64 (n,).

    Returns:
        None if there is nothing to look for, or it is not known which part of the network is its
        head.

    Raises:
        UserError: the head is not used once in a pass, or a picture cannot be read.
    """
    try:
        head = features.find_head(model, classes)
    except UserError:
        return None
    if not len(asked):
        return None
    with (
        preserve_state(model),
        seeding.preserve_generators(),
        features.HeadInputs(model, head) as head_inputs,
    ):
        model.eval()

        def directions(images: ImageSet, index: torch.Tensor) -> torch.Tensor:
            pixels, _ = images.fetch(index.to(images.images.device))
            return F.normalize(head_inputs.of(scaling.apply(pixels.to(device))), dim=1)

        wanted = torch.cat(
            [directions(test, b) for b in torch.split(torch.from_numpy(asked), BLOCK_SAMPLES)]
        )
        cosines = torch.empty(len(asked), 0)
        nearest = torch.empty(len(asked), 0, dtype=torch.int64)
        looked_at, end_s = 0, time.monotonic() + LIMIT_S
        for block in torch.split(torch.from_numpy(_spread(len(train))), BLOCK_SAMPLES):
            found = (wanted @ directions(train, block).T).cpu()
            cosines = torch.cat([cosines, found], dim=1)
            nearest = torch.cat([nearest, block.expand(len(asked), -1)], dim=1)
            cosines, places = cosines.topk(min(NEAREST, cosines.shape[1]))
            nearest = nearest.gather(1, places)
            looked_at += len(block)
            if time.monotonic() > end_s:
                break
    index = nearest.flatten()
    images = train.pictures(index.numpy())
    targets = train.targets[index.to(train.targets.device)].cpu()
    return Neighbours(
        images.reshape(*nearest.shape, *images.shape[1:]),
        targets.view(nearest.shape).numpy(),
        cosines.numpy(),
        looked_at,
        len(train),
    )


def _spread(count: int) -> npt.NDArray[np.int64]:
    """Order positions, int64, so that those before any place are evenly spread over all.

    By multiples of the golden ratio, less their whole parts: any beginning of their order belongs
    to positions with gaps of at most three lengths.
    """
    chosen = np.linspace(0, count - 1, min(count, MOST_IMAGES)).astype(np.int64)
    return chosen[np.argsort(np.arange(len(chosen)) * _GOLDEN_RATIO % 1)]
