"""Classify a set of images: the same bits on any number of processes."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F  # noqa: N812
from accelerate import Accelerator
from torch import nn

from trainer.base import out_of_memory, seeding
from trainer.data import prefetch as prefetching
from trainer.data.dataset import ImageSet
from trainer.data.prefetch import Sent, Transfer
from trainer.data.scaling import Scaling
from trainer.network.buffers_in_passes import preserve_state, save_values
from trainer.training.metrics import MANY_CLASSES, Predictions

BLOCK_SAMPLES = 500
"""in a block, unless that takes too much memory: `evaluation_size`"""


def turns_per_rank(accelerator: Accelerator, blocks: int) -> int:
    """Return how many turns the ranks take, one block each, to go through all blocks."""
    turns: int = -(-blocks // accelerator.num_processes)
    return turns


def iter_rank_blocks(
    accelerator: Accelerator,
    images: ImageSet,
    scaling: Scaling,
    blocks: Sequence[torch.Tensor],
    between_blocks: Callable[[], object],
    model: nn.Module,
    seed: int,
    prefetch: int,
) -> Iterator[tuple[int, torch.Tensor, torch.Tensor]]:
    """Yield this rank's blocks: the number of the turn, from 0, the indices and the scaled images.

    Args:
        blocks: the indices of the images in each, int64.
        between_blocks: called in each turn, also by a rank that has no block in the last one; may
            raise on all of them to give up.
        model: begins each block with the buffers that it has now, and draws that block's numbers.
        prefetch: data.prefetch.
    """
    before = save_values(model)
    starts = list(accumulate(map(len, blocks), initial=0))
    transfer = Transfer(accelerator.device)
    wanted = [block.to(images.images.device) for block in blocks]

    def fetch(number: int) -> Sent:
        return transfer.send(images.fetch(wanted[number])[0])

    own = range(accelerator.process_index, len(blocks), accelerator.num_processes)
    ahead = transfer.ahead(images.images, prefetch)
    with contextlib.closing(prefetching.prefetch(fetch, own, ahead)) as fetched:
        for turn in range(turns_per_rank(accelerator, len(blocks))):
            between_blocks()
            number = turn * accelerator.num_processes + accelerator.process_index
            if number < len(blocks):
                (pixels,) = transfer.receive(next(fetched))
                before.restore()
                seeding.seed_all(seed, "evaluation", starts[number])
                yield turn, blocks[number], scaling.apply(pixels)


def kept_probabilities(classes: int) -> tuple[int, torch.dtype]:
    """Return in which type all probabilities of some classes are kept: 4 bytes, or 2 of many."""
    return classes, torch.float32 if classes < MANY_CLASSES else torch.float16


def explain_memory(
    block_samples: int, device: torch.device
) -> contextlib.AbstractContextManager[None]:
    """Turn a lack of memory inside, where blocks are classified, into a RankError with advice."""
    return out_of_memory.explain(
        f"train.evaluation_batch_size: a block of {block_samples} images of an evaluation",
        "set it to fewer, with which a run that has begun can go on, equal to rounding",
        device,
    )


def average_mirrored(
    answer: Callable[[torch.Tensor], torch.Tensor], inputs: torch.Tensor, mirrored: bool
) -> torch.Tensor:
    """Return the log-probabilities that `answer` gives for scaled images.

    Args:
        answer: may change its input.
        inputs: (n, channels, height, width).
        mirrored: take the mean of the probabilities of each image and its mirror image.
    """
    mirror = inputs.flip(3) if mirrored else None  # before the model can change its input
    found = answer(inputs)
    if mirror is not None:
        found = torch.logaddexp(found, answer(mirror)) - math.log(2.0)
    return found


def log_probabilities(
    model: nn.Module, inputs: torch.Tensor, mirrored: bool = False, temperature: float = 1.0
) -> torch.Tensor:
    """Return the log-probability of each class: float32, (n, classes).

    Args:
        model: in evaluation mode; it may change its input.
        inputs, mirrored: as of `average_mirrored`.
        temperature: by which logits are divided.
    """

    def answer(pixels: torch.Tensor) -> torch.Tensor:
        return _log_softmax(model(pixels).float(), temperature)

    return average_mirrored(answer, inputs, mirrored)


def _log_softmax(logits: torch.Tensor, temperature: float) -> torch.Tensor:
    return (logits if temperature == 1 else logits / temperature).log_softmax(1)


@torch.no_grad()  # the next step could not use tensors that a model keeps from inference mode
def ask(
    accelerator: Accelerator,
    model: nn.Module,
    images: ImageSet,
    scaling: Scaling,
    between_blocks: Callable[[], object],
    kinds: Sequence[tuple[tuple[int, ...], torch.dtype]],
    answer: Callable[[torch.Tensor, torch.Tensor], Sequence[torch.Tensor]],
    *,
    block_samples: int,
    seed: int,
    prefetch: int,
) -> list[npt.NDArray[Any]]:
    """Ask for every image once; a collective, all ranks return the same, in the images' order.

    A block's arithmetic does not depend on how many processes there are, which take the blocks in
    turn. The shorter ranks' gaps are filled with index -1, which is dropped after gathering.

    Args:
        kinds: the shape of each part of an image's answer, and its type.
        answer: takes the indices of some images and the scaled images; returns the parts of their
            answers, each (n, *shape).
        accelerator, model, images, scaling, between_blocks, block_samples, seed, prefetch: as of
            `predict`.

    Raises:
        RankError: they do not fit into the memory.
    """
    count, device = len(images), accelerator.device
    blocks = torch.split(torch.arange(count, device=device), block_samples)
    size = turns_per_rank(accelerator, len(blocks)) * block_samples
    index = torch.full((size,), -1, dtype=torch.int64, device=device)
    parts = [torch.zeros(size, *shape, dtype=kind, device=device) for shape, kind in kinds]
    # The counts in a plug-in's buffers would depend on how many blocks a rank has.
    largest = min(block_samples, count)
    with preserve_state(model), seeding.preserve_generators(), explain_memory(largest, device):
        model.eval()
        for turn, samples, inputs in iter_rank_blocks(
            accelerator, images, scaling, blocks, between_blocks, model, seed, prefetch
        ):
            place = slice(turn * block_samples, turn * block_samples + len(samples))
            index[place] = samples
            for part, found in zip(parts, answer(samples, inputs), strict=True):
                part[place] = found
    index, *parts = accelerator.gather((index, *parts))
    order = torch.argsort(index)[len(index) - count :]
    return [part[order].cpu().numpy() for part in parts]


def predict(
    accelerator: Accelerator,
    model: nn.Module,
    images: ImageSet,
    scaling: Scaling,
    between_blocks: Callable[[], object] = lambda: None,
    mirrored: bool = False,
    *,
    block_samples: int = BLOCK_SAMPLES,
    seed: int = 0,
    prefetch: int = 0,
    kept: tuple[int, torch.dtype] | None = None,
    temperature: float = 1.0,
) -> Predictions:
    """Classify every image once, as `ask` does; a collective, all ranks return the same.

    Args:
        model: prepared for autocast, without DDP's wrapper; its mode is restored.
        images: on the device, or on the CPU if they do not fit.
        between_blocks: as for `iter_rank_blocks`.
        mirrored: take the mean of the probabilities of each image and its mirror image.
        block_samples: images at once, the same on all ranks; rounding may depend on it.
        seed: of the run; what the model draws follows from it and from the block.
        prefetch: data.prefetch; it changes no bit.
        kept: how many classes there are, and the type in which the probabilities of all of them
            are returned too, such as `kept_probabilities` says; None: they are not.
        temperature: by which logits are divided.

    Raises:
        RankError: they do not fit into the memory.
    """
    targets = images.targets.to(accelerator.device)
    kinds: list[tuple[tuple[int, ...], torch.dtype]]
    kinds = [((), torch.int64), ((), torch.float32), ((), torch.float32)]
    if kept:
        kinds.append(((kept[0],), kept[1]))

    def answer(samples: torch.Tensor, inputs: torch.Tensor) -> list[torch.Tensor]:
        found = log_probabilities(model, inputs, mirrored, temperature)
        return _answers(found, targets[samples], kept)

    parts = ask(
        accelerator, model, images, scaling, between_blocks, kinds, answer,
        block_samples=block_samples, seed=seed, prefetch=prefetch,
    )  # fmt: skip
    return _to_predictions(images, parts)


def ask_logits(
    accelerator: Accelerator,
    model: nn.Module,
    images: ImageSet,
    scaling: Scaling,
    between_blocks: Callable[[], object],
    classes: int,
    *,
    block_samples: int,
    seed: int,
    prefetch: int,
) -> npt.NDArray[np.float32]:
    """Return the logits of every image, (n, classes); as `predict`, to whose answers they lead."""

    def answer(_: torch.Tensor, inputs: torch.Tensor) -> list[torch.Tensor]:
        return [model(inputs).float()]

    (logits,) = ask(
        accelerator, model, images, scaling, between_blocks, [((classes,), torch.float32)], answer,
        block_samples=block_samples, seed=seed, prefetch=prefetch,
    )  # fmt: skip
    return logits


@torch.no_grad()
def classify_logits(
    logits: npt.NDArray[np.float32],
    images: ImageSet,
    device: torch.device,
    kept: torch.dtype,
    *,
    block_samples: int,
    temperature: float = 1.0,
) -> Predictions:
    """Return what `predict` does, to the last bit, of images whose logits are known.

    Args:
        logits: from `ask_logits`.
        device: on which `predict` would compute.
        kept: the type of the probabilities of all classes.
        block_samples, temperature: as of `predict`.
    """
    found = []
    for samples in torch.split(torch.arange(len(images)), block_samples):
        block = torch.from_numpy(logits[samples.numpy()]).to(device)
        targets = images.targets[samples.to(images.targets.device)].to(device)
        log_probability = _log_softmax(block, temperature)
        answers = _answers(log_probability, targets, (logits.shape[1], kept))
        found.append([part.cpu().numpy() for part in answers])
    return _to_predictions(images, [np.concatenate(parts) for parts in zip(*found, strict=True)])


def _answers(
    log_probability: torch.Tensor, targets: torch.Tensor, kept: tuple[int, torch.dtype] | None
) -> list[torch.Tensor]:
    """Return of each image its class, that one's probability, its loss, and all probabilities."""
    best_log_probability, best = log_probability.max(1)
    losses = F.nll_loss(log_probability, targets, reduction="none")
    answers = [best, best_log_probability.exp(), losses]
    return [*answers, log_probability.exp().to(kept[1])] if kept else answers


def _to_predictions(images: ImageSet, parts: Sequence[npt.NDArray[Any]]) -> Predictions:
    predicted, probability, loss, *whole = parts
    return Predictions(
        target=images.targets.cpu().numpy(),
        predicted=predicted,
        probability=probability,
        loss=loss,
        probabilities=whole[0] if whole else None,
    )
