"""The named random streams."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from trainer.base import seeding


def draw(samples: list[int], epoch: int = 1, seed: int = 0, count: int = 3) -> torch.Tensor:
    return seeding.uniform(seed, "augmentation", epoch, torch.tensor(samples), count)


@given(st.lists(st.integers(0, 10**7), min_size=1, max_size=30), st.randoms())
def test_a_sample_has_its_numbers_in_any_company(samples: list[int], random: object) -> None:
    shuffled = samples[:]
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    together = dict(zip(shuffled, draw(shuffled).tolist(), strict=True))
    for sample in samples:
        assert together[sample] == draw([sample])[0].tolist()


def test_numbers_are_uniform_and_independent() -> None:
    numbers = draw(list(range(100_000))).double()
    assert numbers.min() >= 0
    assert numbers.max() < 1
    histogram = torch.histc(numbers, bins=20, min=0, max=1) / numbers.numel()
    assert (histogram - 0.05).abs().max() < 0.002
    # Neither between a sample's numbers, nor between neighbours, nor between epochs or seeds.
    others = [numbers[:, 1], numbers[:, 0].roll(1)]
    others += [draw(list(range(100_000)), epoch=2)[:, 0], draw(list(range(100_000)), seed=1)[:, 0]]
    for other in others:
        pair = torch.stack([numbers[:, 0], other.double()])
        assert torch.corrcoef(pair)[0, 1].abs() < 0.015


def test_numbers_of_different_places_are_independent() -> None:
    samples = torch.arange(100_000)
    places: list[tuple[int, ...]] = [(), (0,), (1,), (1, 1)]
    numbers = torch.cat([seeding.uniform(0, "augmentation", 1, samples, 1, *p) for p in places], 1)
    assert torch.corrcoef(numbers.T.double()).triu(1).abs().max() < 0.015


def test_the_streams_of_a_seed_are_told_apart() -> None:
    streams = ["split", "initialisation", "order", "augmentation", "forward"]
    values = {seeding.integer(7, stream, 1) for stream in streams}  # type: ignore[arg-type]
    values |= {seeding.integer(8, "order", 1), seeding.integer(7, "order", 2)}
    values |= {seeding.integer(7, "order"), seeding.integer(7, "forward", 1, 1)}
    assert len(values) == len(streams) + 4


def test_the_streams_are_what_they_were() -> None:
    """A change here changes every run that was ever made: it needs a new major version."""
    assert seeding.integer(0, "order", 1) == 4374215849138048446
    np.testing.assert_array_equal(seeding.permutation(0, 1, 5), [1, 2, 3, 0, 4])
    assert draw([0, 1, 12345])[:, 0].tolist() == [
        0.4851088523864746,
        0.8924769163131714,
        0.8171314597129822,
    ]


def test_the_numbers_of_samples_are_where_the_samples_are() -> None:
    """On a device without memory: all on one device, and for each sample this many."""
    samples = torch.arange(5, device="meta")
    numbers = seeding.uniform(0, "augmentation", 1, samples, 3)
    assert (numbers.device, numbers.shape) == (samples.device, (5, 3))


@pytest.mark.parametrize("accelerator", [False, True])
def test_torch_is_seeded_by_seed_stream_and_position(
    accelerator: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The numbers of the CPU are the same next to a GPU."""

    def drawn(*place: Any) -> tuple[float, ...]:
        seeding.seed_torch(*place)
        return tuple(torch.rand(4).tolist())

    first = drawn(0, "forward", 3, 1)
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: accelerator)
    torch.rand(10)
    assert drawn(0, "forward", 3, 1) == first
    others = [(1, "forward", 3, 1), (0, "initialisation", 3, 1), (0, "forward", 3, 2)]
    assert len({first, *(drawn(*place) for place in others)}) == 4
