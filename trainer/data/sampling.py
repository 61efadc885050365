"""Which samples an optimiser step consumes, and which of them this process computes."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sized
from typing import cast

import torch
from torch.utils.data import Dataset, DistributedSampler

from trainer.base import seeding


def microbatch_sizes(size: int, pieces: int) -> list[int]:
    """Sizes of the micro-batches of a step: they differ by at most one, the larger ones first.

    A step shorter than `pieces` leaves the last ones empty.
    """
    quotient, remainder = divmod(size, pieces)
    return [quotient + (index < remainder) for index in range(pieces)]


def rank_microbatches(rank: int, processes: int, microbatches: int) -> range:
    """The micro-batches that a rank computes: one block of neighbours."""
    each = microbatches // processes
    return range(rank * each, (rank + 1) * each)


class EpochSampler(DistributedSampler[torch.Tensor]):
    """A `DistributedSampler` that yields, for each optimiser step, this rank's samples of it.

    The order of an epoch is permutation(seed, epoch): `set_epoch` reseeds it, and the process
    count does not enter. Step s of the epoch consumes the samples [s * batch_size,
    (s + 1) * batch_size) of the order; a rank takes its block of micro-batches out of them. Unlike
    its base class it neither pads nor drops: over all ranks every sample comes exactly once per
    epoch. The last step may be short, and a rank's part of it may be empty.

    It shards by itself: do not hand it to `accelerator.prepare`, which would shard again.

    Args:
        samples: the training set; only its length counts.
        batch_size: samples of one step, all processes together.
        microbatches: pieces of a batch, a multiple of `num_replicas`.
        seed: the run's seed.
        num_replicas: process count.
        rank: this process.
    """

    def __init__(
        self,
        samples: Sized,
        *,
        batch_size: int,
        microbatches: int,
        seed: int,
        num_replicas: int,
        rank: int,
    ) -> None:
        if microbatches % num_replicas:
            raise ValueError(f"{microbatches} micro-batches do not divide by {num_replicas} ranks")
        dataset = cast("Dataset[torch.Tensor]", samples)
        super().__init__(dataset, num_replicas=num_replicas, rank=rank, seed=seed)
        self.size = len(samples)
        self.batch_size = batch_size
        self.microbatches = microbatches
        self.first_step = 0

    def set_position(self, epoch: int, first_step: int) -> None:
        """Go to an epoch (from 1) and to the step of it (from 0) that comes next."""
        self.set_epoch(epoch)
        self.first_step = first_step

    @property
    def steps(self) -> int:
        """Optimiser steps of an epoch."""
        return -(-self.size // self.batch_size)

    def microbatch_sizes(self, step: int) -> list[int]:
        """Samples in each micro-batch of a step of the epoch, over all processes."""
        return microbatch_sizes(
            min(self.batch_size, self.size - step * self.batch_size), self.microbatches
        )

    def __iter__(self) -> Iterator[torch.Tensor]:
        """Indices of this rank's samples for each step from `first_step` on: int64, (n,)."""
        for step in range(self.first_step, self.steps):
            samples, own = self.global_batch(step)
            yield samples[own]

    def global_batch(self, step: int) -> tuple[torch.Tensor, slice]:
        """Indices of a step's samples over all ranks, int64, (n,), and which are this rank's."""
        sizes = self.microbatch_sizes(step)
        block = rank_microbatches(self.rank, self.num_replicas, self.microbatches)
        first, begin = step * self.batch_size, sum(sizes[: block.start])
        own = slice(begin, begin + sum(sizes[block.start : block.stop]))
        order = _order(self.seed, self.epoch, self.size)
        return order[first : first + sum(sizes)], own

    def __len__(self) -> int:
        """Steps that are left of the epoch."""
        return self.steps - self.first_step


@functools.lru_cache(maxsize=1)
def _order(seed: int, epoch: int, size: int) -> torch.Tensor:
    """An epoch's permutation, kept until the next epoch asks for its own."""
    return torch.from_numpy(seeding.permutation(seed, epoch, size))
