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
    assert cost_model.butterfly_s(Link(1.0, 1.0), 100, processes=1) == 0
    assert cost_model.exact_reduction_s(H100, NET.size_bytes, 1) == 0
    assert cost_model.fast_reduction_s(H100, NET.size_bytes, 1) == 0
    assert cost_model.speed_up("exact", H100, NET, 1024, 1) == 1
    assert cost_model.ideal_step_s(1.0, 0.2, Link(1.0, 1.0), 8, processes=1) == 1.0


def test_the_optimiser_is_not_divided() -> None:
    step_s = cost_model.ideal_step_s(1.0, 0.2, Link(0.0, math.inf), 8, processes=4)
    assert step_s == pytest.approx(0.2 + 0.8 / 4)


@pytest.mark.parametrize("reduction", ["exact", "fast"])
@pytest.mark.parametrize("gpus", [2, 8, 64, 512])
def test_free_communication_divides_the_time(reduction: str, gpus: int) -> None:
    assert cost_model.speed_up(reduction, FREE, NET, 8192, gpus) == pytest.approx(gpus)
    assert cost_model.samples_for(0.9, reduction, FREE, NET, gpus) == 1


@pytest.mark.parametrize("reduction", ["exact", "fast"])
def test_gpus_are_never_more_times_as_fast_than_there_are(reduction: str) -> None:
    for gpus in (2, 8, 16, 512):
        assert 0 < cost_model.speed_up(reduction, H100, NET, 8192, gpus) < gpus


def test_each_doubling_of_the_machines_costs_the_exact_sum_one_message_more() -> None:
    times = [cost_model.exact_reduction_s(H100, NET.size_bytes, gpus) for gpus in (8, 16, 32)]
    adding_s = cost_model.ADDING_PASSES * NET.size_bytes / H100.memory_bytes_per_s
    message_s = H100.call_s + H100.network.message_s(NET.size_bytes) + adding_s
    assert times[1] - times[0] == pytest.approx(message_s)
    assert times[2] - times[1] == pytest.approx(message_s)


def test_a_large_all_reduce_sends_the_vector_twice_whatever_the_count() -> None:
    size_bytes = 1e12
    for gpus in (64, 512):
        seconds = cost_model.fast_reduction_s(H100, size_bytes, gpus)
        assert seconds == pytest.approx(2 * size_bytes / 400e9, rel=0.02)


def test_an_exchange_hides_behind_a_long_backward_pass_but_for_its_last_bucket() -> None:
    one_s = cost_model.fast_step_s(H100, NET, 10_000, 1)
    many_s = cost_model.fast_step_s(H100, NET, 10_000, 64)
    bucket_s = cost_model.fast_reduction_s(H100, cost_model.LAST_BUCKET_BYTES, 64)
    assert bucket_s <= many_s - one_s <= 2 * bucket_s


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
