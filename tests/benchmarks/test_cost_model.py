"""The cost model at its limits, and the page that shows its tables."""

from __future__ import annotations

import dataclasses
import math

import cost_model
import pytest
from cost_model import H100, Link, Net

from tests.conftest import REPOSITORY

NET = Net(10_000_000, 10_000)
FREE = dataclasses.replace(
    H100,
    inside=Link(0.0, math.inf),
    network=Link(0.0, math.inf),
    memory_bytes_per_s=math.inf,
    call_s=0.0,
    tree_inside_s=0.0,
    tree_network_s=0.0,
)


def test_a_fit_finds_the_link_that_made_the_times() -> None:
    link = Link(2e-4, 3e9)
    sizes = [1e5, 1e6, 4e7]
    found = cost_model.fit_link(sizes, [link.message_s(size) for size in sizes])
    assert found.latency_s == pytest.approx(link.latency_s)
    assert found.bytes_per_s == pytest.approx(link.bytes_per_s)


def test_one_process_exchanges_nothing() -> None:
    assert cost_model.exact_reduction_s(H100, NET.size_bytes, 1) == 0
    assert cost_model.fast_reduction_s(H100, NET.size_bytes, 1) == 0
    assert cost_model.speed_up("exact", H100, NET, 1024, 1) == 1
    assert cost_model.ideal_step_s(1.0, 0.2, 0.0, processes=1) == 1.0


def test_the_optimiser_is_not_divided() -> None:
    step_s = cost_model.ideal_step_s(1.0, 0.2, 0.01, processes=4)
    assert step_s == pytest.approx(0.2 + 0.8 / 4 + 0.01)


@pytest.mark.parametrize("reduction", ["exact", "fast"])
@pytest.mark.parametrize("gpus", [2, 8, 64, 512])
def test_free_communication_divides_the_time(reduction: str, gpus: int) -> None:
    assert cost_model.speed_up(reduction, FREE, NET, 8192, gpus) == pytest.approx(gpus)
    assert cost_model.samples_for(0.9, reduction, FREE, NET, gpus) == 1


@pytest.mark.parametrize("reduction", ["exact", "fast"])
def test_gpus_are_never_more_times_as_fast_than_there_are(reduction: str) -> None:
    for gpus in (2, 8, 16, 512):
        assert 0 < cost_model.speed_up(reduction, H100, NET, 8192, gpus) < gpus


@pytest.mark.parametrize("processes", [2, 3, 8, 12, 48, 512])
def test_a_rank_sends_less_than_twice_the_vector(processes: int) -> None:
    """As many bytes as the lower bound of an all-reduce, if all of its pieces are cut."""
    size_bytes = 2.0**30 * 3
    rounds = cost_model.rounds(size_bytes, processes)
    sent = sum(one.sent_bytes for one in rounds) / size_bytes
    assert sent == pytest.approx(2 * (processes - 1) / processes)
    added = sum(one.added_bytes for one in rounds) / size_bytes
    assert added == pytest.approx((processes - 1) / processes)


def test_small_vectors_are_exchanged_whole() -> None:
    assert [one.sent_bytes for one in cost_model.rounds(100.0, 8)] == [100.0] * 3


def test_between_machines_each_rank_sends_its_piece_of_a_machines_sum() -> None:
    """An eighth of the vector twice, by each of the eight ports."""
    rounds = cost_model.rounds(2.0**30, 64)
    outside = sum(one.sent_bytes for one in rounds if one.ranks > 8)
    assert outside == pytest.approx(2 / 8 * 2.0**30, rel=0.15)


def test_a_large_all_reduce_sends_the_vector_twice_whatever_the_count() -> None:
    size_bytes = 1e12
    for gpus in (64, 512):
        seconds = cost_model.fast_reduction_s(H100, size_bytes, gpus)
        assert seconds == pytest.approx(2 * size_bytes / 400e9, rel=0.02)


@pytest.mark.parametrize("reduction", ["exact", "fast"])
def test_an_exchange_hides_behind_a_long_backward_pass_but_for_its_last_bucket(
    reduction: str,
) -> None:
    step_s = cost_model.STEPS[reduction]
    one_s = step_s(H100, NET, 10_000, 1)
    more_s = step_s(H100, NET, 10_000, 64) - one_s
    together_s = step_s(dataclasses.replace(H100, overlaps=False), NET, 10_000, 64) - one_s
    assert 0 < more_s < together_s


def test_each_doubt_costs_efficiency() -> None:
    sure, *others = cost_model.doubts(H100).values()
    efficiency = [cost_model.speed_up("exact", one, NET, 8192, 512) for one in (sure, *others)]
    assert all(other < efficiency[0] for other in efficiency[1:])
    assert min(efficiency) == efficiency[-1]


@pytest.mark.parametrize("reduction", ["exact", "fast"])
def test_the_fewest_samples_for_an_efficiency_are_the_fewest(reduction: str) -> None:
    samples = cost_model.samples_for(0.9, reduction, H100, NET, 64)

    def alone_over_step(count: int) -> float:
        step_s = cost_model.STEPS[reduction]
        return cost_model.exact_step_s(H100, NET, count, 1) / step_s(H100, NET, count, 64)

    assert alone_over_step(samples) >= 0.9 > alone_over_step(samples - 1)


def test_the_page_shows_what_the_functions_say() -> None:
    page = (REPOSITORY / "docs" / "scaling.md").read_text()
    assert "\n".join(cost_model.cluster_tables()) in page, "python benchmarks/scaling.py model"
