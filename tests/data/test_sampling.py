"""The sampler takes every sample once per epoch, on any number of processes."""

from __future__ import annotations

from itertools import chain
from unittest.mock import patch

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from trainer.base import seeding
from trainer.data.sampling import (
    EpochSampler,
    SamplesByClass,
    draw_balanced,
    draw_by_weight,
)


def samplers(
    size: int,
    processes: int,
    batch_size: int,
    microbatches: int,
    seed: int = 3,
    weights: np.ndarray | None = None,
    classes: np.ndarray | None = None,
) -> list[EpochSampler]:
    return [
        EpochSampler(
            range(size),
            batch_size=batch_size,
            microbatches=microbatches,
            seed=seed,
            num_replicas=processes,
            rank=rank,
            weights=weights,
            classes=classes,
        )
        for rank in range(processes)
    ]


def steps_of(ranks: list[EpochSampler], epoch: int) -> list[list[int]]:
    """Return the samples of each step, the ranks' parts one after the other."""
    for sampler in ranks:
        sampler.set_epoch(epoch)
    return [torch.cat(parts).tolist() for parts in zip(*ranks, strict=True)]


shapes = st.tuples(st.integers(1, 300), st.integers(1, 6), st.integers(1, 4), st.integers(24, 64))


@given(shapes, st.integers(1, 50))
def test_every_sample_exactly_once_per_epoch(shape: tuple[int, int, int, int], epoch: int) -> None:
    size, processes, each, batch_size = shape
    ranks = samplers(size, processes, batch_size, processes * each)
    steps = steps_of(ranks, epoch)
    assert sorted(chain.from_iterable(steps)) == list(range(size))
    assert len(steps) == len(ranks[0])
    assert all(len(step) == batch_size for step in steps[:-1])
    for number, step in enumerate(steps):
        sizes = ranks[0].microbatch_sizes(number)
        assert sum(sizes) == len(step)
        own = [len(range(*sampler.global_batch(number)[1].indices(size))) for sampler in ranks]
        assert own == [sum(sizes[rank * each : (rank + 1) * each]) for rank in range(processes)]


@given(shapes)
def test_the_process_count_does_not_change_a_step(shape: tuple[int, int, int, int]) -> None:
    size, processes, each, batch_size = shape
    single = samplers(size, 1, batch_size, processes * each)
    together = samplers(size, processes, batch_size, processes * each)
    assert steps_of(single, 2) == steps_of(together, 2)


def test_every_epoch_and_seed_has_another_order() -> None:
    (sampler,) = samplers(100, 1, 100, 1)
    orders = [steps_of([sampler], epoch)[0] for epoch in (1, 2)]
    assert orders[0] != orders[1]
    assert steps_of([sampler], 1)[0] == orders[0]
    assert steps_of(samplers(100, 1, 100, 1, seed=4), 1)[0] != orders[0]
    assert steps_of(samplers(100, 1, 100, 1), 1)[0] == orders[0]


def test_an_order_is_drawn_once_for_all_steps_of_its_epoch() -> None:
    with patch("trainer.base.seeding.permutation", wraps=seeding.permutation) as draw:
        steps_of(samplers(100, 2, 10, 2, seed=9), 1)
    assert draw.call_count == 1


def test_the_order_is_well_mixed() -> None:
    # Over many epochs every sample comes first about equally often.
    (sampler,) = samplers(10, 1, 10, 1)
    first = [steps_of([sampler], epoch)[0][0] for epoch in range(1, 2001)]
    counts = np.bincount(first, minlength=10)
    assert counts.min() > 140
    assert counts.max() < 260


def test_microbatches_that_do_not_divide_are_refused() -> None:
    with pytest.raises(ValueError, match="4 micro-batches do not divide by 3 ranks"):
        samplers(10, 3, 8, 4)


def test_with_weights_samples_come_in_proportion_to_them() -> None:
    weights = np.array([0.0, 1.0, 2.0, 5.0, 0.0])
    drawn = [draw_by_weight(0, epoch, weights) % 5 for epoch in range(1, 2001)]
    shares = np.bincount(np.concatenate(drawn), minlength=5) / 10_000
    assert shares[[0, 4]].tolist() == [0, 0]
    assert np.abs(shares - weights / 8).max() < 0.02


def test_a_draw_says_how_often_its_sample_came_before() -> None:
    draws = draw_by_weight(5, 1, np.array([1.0, 1e-300, 3.0, 1e300]))
    assert draws.tolist() == [3, 7, 11, 15]
    many = draw_by_weight(5, 2, np.arange(100.0))
    assert len(set(many.tolist())) == 100
    seen: dict[int, int] = {}
    for draw in many.tolist():
        assert draw // 100 == seen.get(draw % 100, 0)
        seen[draw % 100] = draw // 100 + 1


@given(shapes)
def test_the_process_count_does_not_change_what_weights_draw(
    shape: tuple[int, int, int, int],
) -> None:
    size, processes, each, batch_size = shape
    weights = np.arange(1.0, size + 1)
    single = samplers(size, 1, batch_size, processes * each, weights=weights)
    together = samplers(size, processes, batch_size, processes * each, weights=weights)
    assert steps_of(single, 2) == steps_of(together, 2)
    assert steps_of(single, 2) == steps_of(single, 2)


class_sizes = st.lists(st.integers(0, 40), min_size=1, max_size=7).filter(any)


@given(class_sizes, st.integers(1, 30), st.integers(0, 5))
def test_balanced_draws_are_even_within_classes_and_within_samples(
    sizes: list[int], epochs: int, seed: int
) -> None:
    """Of each class equally many in an epoch, and over the epochs of each sample of a class."""
    rng = np.random.default_rng(seed)
    classes = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
    count, present = len(classes), np.flatnonzero(sizes)
    often = np.zeros(count, np.int64)
    by_class = SamplesByClass(classes)
    for epoch in range(1, epochs + 1):
        draws = draw_balanced(seed, epoch, by_class)
        assert len(draws) == count
        assert len(np.unique(draws)) == count, "each draw has random numbers of its own"
        drawn = draws % count
        of_class = np.bincount(classes[drawn], minlength=len(sizes))[present]
        assert of_class.max() - of_class.min() <= 1
        repeats = np.bincount(drawn, minlength=count)
        np.testing.assert_array_equal(
            np.sort(draws // count),
            np.sort(np.concatenate([np.arange(number) for number in repeats])),
        )
        often += repeats
        for label in present:
            own = often[classes == label]
            assert own.max() - own.min() <= 1
    assert abs(often.sum() - epochs * count) == 0


def test_balanced_draws_differ_by_epoch_and_seed_and_are_mixed() -> None:
    classes = np.repeat([0, 1], [400, 20])
    by_class = SamplesByClass(classes)
    one, again, other, another = (
        draw_balanced(seed, epoch, by_class) for seed, epoch in ((3, 1), (3, 1), (3, 2), (4, 1))
    )
    np.testing.assert_array_equal(one, again)
    assert (one != other).mean() > 0.9 and (one != another).mean() > 0.9
    rare = np.array([(classes[part % 420] == 1).sum() for part in np.split(one, 7)])
    assert rare.min() > 15 and rare.max() < 45, "of 60 draws about 30"


def test_the_ranks_share_the_balanced_draws() -> None:
    classes = np.repeat([0, 1, 2], [50, 3, 10])
    wanted = draw_balanced(3, 2, SamplesByClass(classes)).tolist()
    for processes in (1, 2, 4):
        ranks = samplers(63, processes, 20, 4, classes=classes)
        assert list(chain.from_iterable(steps_of(ranks, 2))) == wanted
