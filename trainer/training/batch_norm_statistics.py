"""Recompute the statistics of batch normalisation: the same bits on any number of processes."""

from __future__ import annotations

from collections.abc import Callable

import torch
from accelerate import Accelerator
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from trainer.base import seeding
from trainer.data.dataset import ImageSet
from trainer.data.sampling import microbatch_sizes
from trainer.data.scaling import Scaling
from trainer.network.buffers_in_passes import preserve_state
from trainer.training.evaluation import BLOCK_SAMPLES, explain_memory, iter_rank_blocks

SUMMED_BLOCKS = 128
"""whose statistics are kept at a time; counted in their order, whatever the process count"""


@torch.no_grad()
def recompute(
    accelerator: Accelerator,
    model: nn.Module,
    images: ImageSet,
    scaling: Scaling,
    between_blocks: Callable[[], object] = lambda: None,
    *,
    block_samples: int = BLOCK_SAMPLES,
    seed: int = 0,
    prefetch: int = 0,
) -> None:
    """Replace the running statistics of all batch norms by their means over the images.

    As in an evaluation the ranks take blocks of the images in turn, here of nearly equal sizes.
    Each block is normalised by its own statistics; only the norms are in training mode. A norm
    that is frozen, in evaluation mode or with a momentum of 0 keeps its statistics. A collective.

    Args:
        model: in training mode, prepared for autocast, without DDP's wrapper.
        images: the training images, which are not augmented here.
        between_blocks: as for `iter_rank_blocks`.
        block_samples, prefetch: as for `predict`.
    """
    norms = [
        module
        for module in model.modules()
        if isinstance(module, _BatchNorm) and module.running_mean is not None
        if module.training and module.momentum != 0
    ]
    if not norms:
        return
    count = len(images)
    # At least two images if there are two: a single one may have no deviation.
    sizes = microbatch_sizes(count, max(1, min(-(-count // block_samples), count // 2)))
    blocks = torch.split(torch.arange(count), sizes)
    mean = _Mean(accelerator, sizes, sum(map(len, _buffers(norms))))
    modes = {module: module.training for module in model.modules()}
    momenta = [norm.momentum for norm in norms]

    def begin_turn() -> None:
        mean.begin_turn()
        between_blocks()

    try:
        with (
            preserve_state(model),
            seeding.preserve_generators(),
            explain_memory(max(sizes), accelerator.device),
        ):
            model.eval()
            for norm in norms:
                norm.train()
                norm.momentum = None  # the mean over the calls since the count was 0
            for _, _, inputs in iter_rank_blocks(
                accelerator, images, scaling, blocks, begin_turn, model, seed, prefetch
            ):
                for norm in norms:
                    norm.num_batches_tracked = torch.zeros((), dtype=torch.int64)
                model(inputs)
                mean.own = torch.cat(_buffers(norms))
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
        for module, training in modes.items():
            module.training = training
    buffers = _buffers(norms)
    pieces = torch.split(mean.value(), [len(buffer) for buffer in buffers])
    for buffer, piece in zip(buffers, pieces, strict=True):
        buffer.copy_(piece)


class _Mean:
    """Takes the mean of the blocks' vectors, weighted by their sizes: the same bits on any ranks.

    Only some vectors are kept at a time, because a large data set has many blocks.

    Args:
        accelerator: the ranks, each of which has one block of a turn, or none in the last one.
        sizes: images in each block.
        width: of a vector.

    Attributes:
        own: the vector of this rank's block in the current turn.
    """

    def __init__(self, accelerator: Accelerator, sizes: list[int], width: int) -> None:
        self.accelerator = accelerator
        self.own = torch.zeros(width, device=accelerator.device)
        self._weights = torch.tensor(sizes, device=accelerator.device) / sum(sizes)
        self._begun = False
        self._vectors: list[torch.Tensor] = []
        self._sums: list[torch.Tensor] = []

    def begin_turn(self) -> None:
        """Gather the vectors of the previous turn; a collective."""
        if self._begun:
            self._gather()
        self._begun = True

    def value(self) -> torch.Tensor:
        """Return the mean, after the last turn; a collective."""
        self._gather()
        if self._vectors:
            self._add_up()
        return torch.stack(self._sums).sum(0)

    def _gather(self) -> None:
        expected = len(self._weights) - SUMMED_BLOCKS * len(self._sums) - len(self._vectors)
        # In the last turn some ranks have no block.
        self._vectors += self.accelerator.gather(self.own[None].clone())[:expected]
        while len(self._vectors) >= SUMMED_BLOCKS:
            self._add_up()

    def _add_up(self) -> None:
        """Replace the oldest vectors by their sum."""
        first = SUMMED_BLOCKS * len(self._sums)
        oldest = torch.stack(self._vectors[:SUMMED_BLOCKS])
        weights = self._weights[first : first + len(oldest), None]
        self._sums.append((weights * oldest).sum(0))
        self._vectors = self._vectors[SUMMED_BLOCKS:]


def _buffers(norms: list[_BatchNorm]) -> list[torch.Tensor]:
    return [norm.get_buffer(name) for norm in norms for name in ("running_mean", "running_var")]
