"""Choose the samples of an optimiser step, and those of them that this process computes."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sized
from typing import cast

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import Dataset, DistributedSampler

from trainer.base import seeding

_SEGMENT_BITS = 30
"""of a key to sort by: the pass of a class"""


def microbatch_sizes(samples: int, microbatches: int) -> list[int]:
    """Divide samples into micro-batches: sizes differ by at most one, the larger ones come first.

    Fewer samples than micro-batches leave the last ones empty.
    """
    quotient, remainder = divmod(samples, microbatches)
    return [quotient + (index < remainder) for index in range(microbatches)]


def smallest_microbatch(samples: int, batch_size: int, microbatches: int) -> int:
    """Return the size of the smallest micro-batch of an epoch that is not empty."""
    steps = {min(batch_size, samples), samples % batch_size}
    return min(size for step in steps for size in microbatch_sizes(step, microbatches) if size)


def rank_microbatches(rank: int, processes: int, microbatches: int) -> range:
    """Return the micro-batches that a rank computes: one block of neighbours."""
    each = microbatches // processes
    return range(rank * each, (rank + 1) * each)


def draw_by_weight(
    seed: int, epoch: int, weights: npt.NDArray[np.float64]
) -> npt.NDArray[np.int64]:
    """Draw as many samples as there are, each time from all of them, in proportion to weights.

    Args:
        weights: 0 or more, finite and not all 0, float64 (n,).

    Returns:
        Draws, int64 (n,): the first draw of a sample is its index, the second one in an epoch its
        index + n, the third its index + 2 n. So each may have random numbers of its own.
    """
    count = len(weights)
    bounds = np.cumsum(weights / weights.max())
    points = seeding.generator(seed, "order", epoch).random(count) * bounds[-1]
    return _number_draws(np.searchsorted(bounds, points, side="right"))


class SamplesByClass:
    """Samples sorted by their classes, once for all epochs.

    Args:
        classes: of the samples, int64 (n,).

    Attributes:
        samples: those of the first class that has some, then those of the next, int64 (n,).
        sizes: how many samples each of these classes has, int64 (present classes,).
    """

    def __init__(self, classes: npt.NDArray[np.int64]) -> None:
        self.samples = np.argsort(classes, kind="stable")
        self.sizes = np.unique(classes, return_counts=True)[1]


def draw_balanced(seed: int, epoch: int, by_class: SamplesByClass) -> npt.NDArray[np.int64]:
    """Draw as many samples as there are, of each class equally many, up to one.

    The samples of a class come in passes: all of them in a random order, then all again in another
    one, on and on from epoch to epoch. So over the epochs each has come equally often, up to one,
    and a large class loses none of its samples.

    Args:
        epoch: from 1.

    Returns:
        Draws, as of `draw_by_weight`.
    """
    count, sizes = len(by_class.samples), by_class.sizes
    number = np.arange(len(sizes))
    # Of n draws an epoch each class has n / classes, rounded so that they are n together.
    before = ((epoch - 1) * count + number) // len(sizes)
    after = (epoch * count + number) // len(sizes)
    passes = np.where(after > before, (after - 1) // sizes - before // sizes + 1, 0)
    # A row for each sample in each pass that this epoch has a part of.
    segment_class = np.repeat(number, passes)
    segment_pass = (before // sizes)[segment_class] + _count_up(passes)
    lengths = sizes[segment_class]
    segment = np.repeat(np.arange(len(lengths)), lengths)
    place = _count_up(lengths)
    sample = by_class.samples[(np.cumsum(sizes) - sizes)[segment_class[segment]] + place]
    counters = (segment_pass[segment] * count + sample).astype(np.uint64)
    keys = seeding.sort_keys(seed, "balance", counters) >> np.uint64(_SEGMENT_BITS)
    keys |= segment.astype(np.uint64) << np.uint64(64 - _SEGMENT_BITS)
    shuffled = sample[np.argsort(keys, kind="stable")]
    position = segment_pass[segment] * lengths[segment] + place
    chosen = (before[segment_class[segment]] <= position) & (
        position < after[segment_class[segment]]
    )
    order = seeding.generator(seed, "order", epoch).permutation(count)
    return _number_draws(shuffled[chosen][order])


def _count_up(lengths: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return 0, 1, ... for each of some lengths, one after the other."""
    ends = np.cumsum(lengths)
    found: npt.NDArray[np.int64] = np.arange(ends[-1]) - np.repeat(ends - lengths, lengths)
    return found


def _number_draws(drawn: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Add n to the second draw of a sample, 2 n to the third, of n draws: int64 (n,)."""
    count = len(drawn)
    by_sample = np.argsort(drawn, kind="stable")
    ordered = drawn[by_sample]
    earlier = np.arange(count) - np.searchsorted(ordered, ordered)
    draws = np.empty(count, dtype=np.int64)
    draws[by_sample] = ordered + count * earlier
    return draws


class EpochSampler(DistributedSampler[torch.Tensor]):
    """Yield the indices of this rank's samples, int64 (n,), for each optimiser step of an epoch.

    `set_epoch` sets the epoch, from 1. Its order is permutation(seed, epoch), or with weights the
    draws of `draw_by_weight`, with classes those of `draw_balanced`, whatever the process count.
    Step s takes the samples [s * batch_size, (s + 1) * batch_size) of the order, and a rank takes
    its block of micro-batches out of them. Unlike its base class it neither pads nor drops: over
    all ranks every sample of the order comes exactly once per epoch. The last step may be short,
    and a rank's part of it may be empty.

    Args:
        dataset: only its length counts.
        batch_size: samples of one step, all processes together.
        microbatches: pieces of a batch, a multiple of `num_replicas`, the process count.
        weights: of the samples, as `draw_by_weight` takes them.
        classes: of the samples, int64 (n,), for `draw_balanced`. Without both each comes once.
    """

    def __init__(
        self,
        dataset: Sized,
        *,
        batch_size: int,
        microbatches: int,
        seed: int,
        num_replicas: int,
        rank: int,
        weights: npt.NDArray[np.float64] | None = None,
        classes: npt.NDArray[np.int64] | None = None,
    ) -> None:
        if microbatches % num_replicas:
            raise ValueError(f"{microbatches} micro-batches do not divide by {num_replicas} ranks")
        super().__init__(
            cast("Dataset[torch.Tensor]", dataset), num_replicas=num_replicas, rank=rank, seed=seed
        )
        self.samples = len(dataset)
        self.batch_size = batch_size
        self.microbatches = microbatches
        self.weights = weights
        self.by_class = None if classes is None else SamplesByClass(classes)
        self._draw = functools.lru_cache(maxsize=1)(self._draw_order)

    def __len__(self) -> int:
        """Return the number of optimiser steps of an epoch."""
        return len(range(0, self.samples, self.batch_size))

    def __iter__(self) -> Iterator[torch.Tensor]:
        for step in range(len(self)):
            samples, own = self.global_batch(step)
            yield samples[own]

    def microbatch_sizes(self, step: int) -> list[int]:
        """Return the samples in each micro-batch of a step (from 0), over all processes."""
        left = self.samples - step * self.batch_size
        return microbatch_sizes(min(self.batch_size, left), self.microbatches)

    def global_batch(self, step: int) -> tuple[torch.Tensor, slice]:
        """Return the indices of a step's samples over all ranks, int64 (n,), and this rank's slice.

        Args:
            step: of the epoch, from 0.
        """
        sizes = self.microbatch_sizes(step)
        block = rank_microbatches(self.rank, self.num_replicas, self.microbatches)
        first, begin = step * self.batch_size, sum(sizes[: block.start])
        own = slice(begin, begin + sum(sizes[block.start : block.stop]))
        order = self._draw(self.epoch)
        return order[first : first + sum(sizes)], own

    def _draw_order(self, epoch: int) -> torch.Tensor:
        if self.weights is not None:
            return torch.from_numpy(draw_by_weight(self.seed, epoch, self.weights))
        if self.by_class is not None:
            return torch.from_numpy(draw_balanced(self.seed, epoch, self.by_class))
        return _permutation(self.seed, epoch, self.samples)


@functools.lru_cache(maxsize=1)
def _permutation(seed: int, epoch: int, samples: int) -> torch.Tensor:
    """Return an epoch's permutation, and cache it until another epoch's is asked for."""
    return torch.from_numpy(seeding.permutation(seed, epoch, samples))
