"""Predictions of a model for a set of images, the same bits at any process count."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import torch
import torch.nn.functional as F  # noqa: N812
from accelerate import Accelerator
from torch import nn

from trainer.buffers import left_alone
from trainer.data.scaling import Scaling
from trainer.data.sets import ImageSet
from trainer.metrics import Predictions

BLOCK_SAMPLES = 500
"""at most in a block: images are cut by their index, whatever the process count"""


def rounds(accelerator: Accelerator, images: ImageSet) -> int:
    """How often each rank has its turn to take a block."""
    samples: int = BLOCK_SAMPLES * accelerator.num_processes
    return -(-len(images) // samples)


def own_blocks(
    accelerator: Accelerator,
    images: ImageSet,
    scaling: Scaling,
    blocks: Sequence[torch.Tensor],
    between_blocks: Callable[[], object],
) -> Iterator[tuple[int, torch.Tensor, torch.Tensor]]:
    """This rank's blocks: the number of the turn, from 0, the indices and the scaled images.

    Args:
        blocks: the indices of the images in each, int64.
        between_blocks: called in each of the `rounds`, also by a rank that has no block in the last
            one; may raise on all of them to give up.
    """
    for turn in range(rounds(accelerator, images)):
        between_blocks()
        number = turn * accelerator.num_processes + accelerator.process_index
        if number < len(blocks):
            pixels, _ = images.__getitems__(blocks[number].to(images.images.device))
            yield turn, blocks[number], scaling.apply(pixels.to(accelerator.device))


def log_probabilities(
    model: nn.Module, inputs: torch.Tensor, mirrored: bool = False
) -> torch.Tensor:
    """Of each class: float32, (n, classes).

    Args:
        model: in evaluation mode; it may change its input.
        inputs: scaled images, (n, channels, height, width).
        mirrored: take the mean of the probabilities of each image and its mirror image.
    """
    mirror = inputs.flip(3) if mirrored else None  # before the model can change its input
    found: torch.Tensor = model(inputs).float().log_softmax(1)
    if mirror is not None:
        others = model(mirror).float().log_softmax(1)
        found = torch.logaddexp(found, others) - math.log(2.0)
    return found


@torch.inference_mode()
def predict(
    accelerator: Accelerator,
    model: nn.Module,
    images: ImageSet,
    scaling: Scaling,
    between_blocks: Callable[[], object] = lambda: None,
    mirrored: bool = False,
) -> Predictions:
    """Classify every image once; a collective, all ranks return the same.

    A block's arithmetic does not depend on how many processes there are, which take the blocks in
    turn. The shorter ranks' gaps are filled with index -1, which is dropped after gathering.

    Args:
        model: prepared for autocast, without DDP's wrapper; comes back in the mode it was in.
        images: on the device, or where they do not fit, on the CPU.
        between_blocks: as for `own_blocks`.
        mirrored: take the mean of the probabilities of each image and its mirror image.
    """
    count, device = len(images), accelerator.device
    blocks = torch.split(torch.arange(count, device=device), BLOCK_SAMPLES)
    targets = images.targets.to(device)
    size = rounds(accelerator, images) * BLOCK_SAMPLES
    index = torch.full((size,), -1, dtype=torch.int64, device=device)
    predicted = torch.zeros(size, dtype=torch.int64, device=device)
    floats = torch.zeros(size, 2, device=device)
    # What a plug-in counts in its buffers would depend on how many blocks a rank has.
    with left_alone(model):
        model.eval()
        for turn, samples, inputs in own_blocks(
            accelerator, images, scaling, blocks, between_blocks
        ):
            found = log_probabilities(model, inputs, mirrored)
            best_log_probability, best = found.max(1)
            place = slice(turn * BLOCK_SAMPLES, turn * BLOCK_SAMPLES + len(samples))
            index[place], predicted[place] = samples, best
            floats[place, 0] = best_log_probability.exp()
            floats[place, 1] = F.nll_loss(found, targets[samples], reduction="none")
    index, predicted, floats = accelerator.gather((index, predicted, floats))
    order = torch.argsort(index)[len(index) - count :]
    return Predictions(
        target=images.targets.cpu().numpy(),
        predicted=predicted[order].cpu().numpy(),
        probability=floats[order, 0].cpu().numpy(),
        loss=floats[order, 1].cpu().numpy(),
    )
