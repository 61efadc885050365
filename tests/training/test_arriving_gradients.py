"""Gradients that leave as soon as they are there are those of an ordinary backward pass."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from tests.distributed.fake_ranks import be_rank
from trainer.training import exchange
from trainer.training.arriving_gradients import (
    CACHED_BYTES,
    Arrival,
    ArrivingGradients,
    choose_arrival,
    present_mask,
)
from trainer.training.step_sum import StepSum

ORDERS = [[0, 2, 3, 1], [0], [1, 0]]
"""how the dimensions of the parameters below lie in the vector"""
ONE, OTHER = torch.tensor([1.0, 2.0]), torch.tensor([10.0, 20.0])
"""what comes before the mask and the gradients in the vectors of two micro-batches"""


@pytest.fixture(autouse=True)
def _process_group() -> Iterator[None]:
    with be_rank(0, 1):
        yield


@pytest.fixture(params=["exchanged", "summed"])
def arrival(request: pytest.FixtureRequest) -> Arrival:
    found: Arrival = request.param
    return found


@pytest.fixture
def parameters() -> list[nn.Parameter]:
    torch.manual_seed(0)
    return [nn.Parameter(torch.rand(*shape)) for shape in ((2, 3, 4, 5), (6,), (3, 2))]


def loss(parameters: list[nn.Parameter]) -> torch.Tensor:
    """Of the last parameter nothing comes."""
    return (parameters[0] ** 2).sum() * 3 + parameters[1].sum() * 5


def gradients(parameters: list[nn.Parameter]) -> list[torch.Tensor]:
    return [6 * parameters[0].detach(), torch.full((6,), 5.0), torch.zeros(3, 2)]


def start(arriving: ArrivingGradients, parameters: list[nn.Parameter]) -> StepSum:
    """Begin the last of two leaves; the first one has a gradient of ones for each parameter."""
    sums = StepSum(2)
    pairs = zip(parameters, ORDERS, strict=True)
    ones = [torch.ones_like(one.permute(order)) for one, order in pairs]
    sums.add(0, [ONE, torch.ones(3), *ones])
    arriving.begin(sums, 1, [torch.empty(2)])
    return sums


def check(
    sums: StepSum, parameters: list[nn.Parameter], mask: list[float], came: list[torch.Tensor]
) -> None:
    first, present, *found = sums.finish()
    assert torch.equal(first, ONE + OTHER)
    assert present.tolist() == [1 + one for one in mask]
    for one, order, gradient, parameter in zip(found, ORDERS, came, parameters, strict=True):
        assert torch.equal(one, 1 + gradient.permute(order))
        assert parameter.grad is None


def test_they_leave_during_the_pass_and_what_is_missing_is_zero(
    parameters: list[nn.Parameter], arrival: Arrival
) -> None:
    arriving = ArrivingGradients(parameters, ORDERS, arrival)
    assert not arriving.is_safe, "before there was a pass"
    for _ in range(2):
        with arriving.watch_pass():
            loss(parameters).backward()
        assert arriving.is_safe
        for parameter, gradient in zip(parameters[:2], gradients(parameters), strict=False):
            assert torch.equal(parameter.grad, gradient), "an ordinary pass keeps them"
            parameter.grad = None
    for _ in range(2):
        sums = start(arriving, parameters)
        with arriving.watch_pass():
            loss(parameters).backward()
        assert arriving.complete([OTHER]) == {2}
        check(sums, parameters, [1, 1, 0], gradients(parameters))
    assert arriving.is_safe


def test_a_micro_batch_without_images_has_no_gradients(
    parameters: list[nn.Parameter], arrival: Arrival
) -> None:
    arriving = ArrivingGradients(parameters, ORDERS, arrival)
    with arriving.watch_pass():
        loss(parameters).backward()
    for parameter in parameters:
        parameter.grad = None
    sums = start(arriving, parameters)
    assert arriving.complete([OTHER]) == {0, 1, 2}
    check(sums, parameters, [0, 0, 0], [torch.zeros_like(one) for one in parameters])


def test_the_last_micro_batch_may_be_the_only_one(
    parameters: list[nn.Parameter], arrival: Arrival
) -> None:
    arriving, sums = ArrivingGradients(parameters, ORDERS, arrival), StepSum(1)
    arriving.begin(sums, 0, [torch.empty(2)])
    with arriving.watch_pass():
        loss(parameters).backward()
    assert arriving.complete([OTHER]) == {2}
    first, present, *found = sums.finish()
    assert (first.tolist(), present.tolist()) == (OTHER.tolist(), [1, 1, 0])
    for one, order, gradient in zip(found, ORDERS, gradients(parameters), strict=True):
        assert torch.equal(one, gradient.permute(order))


def test_the_mask_is_where_the_parameters_are() -> None:
    arriving = ArrivingGradients([nn.Parameter(torch.empty(1, device="meta"))], [[0]], "summed")
    assert arriving._mask(()).device.type == "meta"


def test_only_gradients_of_a_watched_pass_leave(
    parameters: list[nn.Parameter], arrival: Arrival
) -> None:
    """Not those of a pass for something else, nor any after the hooks were taken off."""
    arriving = ArrivingGradients(parameters, ORDERS, arrival)
    nothing = [torch.zeros_like(one) for one in parameters]

    def nothing_leaves() -> None:
        sums = start(arriving, parameters)
        loss(parameters).backward()
        assert parameters[1].grad is not None
        for parameter in parameters:
            parameter.grad = None
        assert arriving.complete([OTHER]) == {0, 1, 2}
        check(sums, parameters, [0, 0, 0], nothing)

    nothing_leaves()
    with arriving.watch_pass():
        pass
    nothing_leaves()
    arriving.remove()
    with arriving.watch_pass():
        nothing_leaves()


def test_a_gradient_that_comes_in_two_parts_may_not_leave(
    parameters: list[nn.Parameter], arrival: Arrival
) -> None:
    arriving = ArrivingGradients(parameters, ORDERS, arrival)
    with arriving.watch_pass():
        loss(parameters).backward()
        parameters[1].sum().backward()
    with arriving.watch_pass():
        loss(parameters).backward()
    assert not arriving.is_safe, "it may happen again"
    arriving = ArrivingGradients(parameters, ORDERS, arrival)
    sums = start(arriving, parameters)
    with pytest.raises(RuntimeError) as caught, arriving.watch_pass():
        loss(parameters).backward()
        parameters[1].sum().backward()
    assert str(caught.value) == (
        "the gradient of parameter 1 came in two parts, after passes in which it came in one; its "
        "first part was summed already"
    )
    sums.finish()  # ends its thread


def test_the_mask_is_made_on_the_device() -> None:
    cpu, meta = torch.device("cpu"), torch.device("meta")
    mask = present_mask(4, {1, 3}, cpu)
    assert mask.tolist() == [1.0, 0.0, 1.0, 0.0]
    assert mask.dtype == torch.float32
    assert present_mask(2, (), cpu).tolist() == [1.0, 1.0]
    assert {present_mask(2, missing, meta).device for missing in ((), {1})} == {meta}


def test_a_sum_of_many_micro_batches_is_that_of_whole_leaves(
    parameters: list[nn.Parameter],
) -> None:
    """The tree of five has nodes that wait for others, and leaves that complete several."""
    arriving = ArrivingGradients(parameters, ORDERS, "summed")
    sums, expected = StepSum(5), StepSum(5)
    for index in range(5):
        loss([one * (index + 0.1) for one in parameters]).backward()
        pairs = zip(parameters[:2], ORDERS, strict=False)
        leaf = [one.grad.permute(order) for one, order in pairs]
        expected.add(index, [ONE * index, torch.tensor([1.0, 1, 0]), *leaf, torch.zeros(2, 3)])
        for parameter in parameters:
            parameter.grad = None
        arriving.begin(sums, index, [torch.empty(2)])
        with arriving.watch_pass():
            loss([one * (index + 0.1) for one in parameters]).backward()
        arriving.complete([ONE * index])
    for one, other in zip(sums.finish(), expected.finish(), strict=True):
        assert torch.equal(one, other)


def test_only_the_last_leaf_is_exchanged(parameters: list[nn.Parameter], arrival: Arrival) -> None:
    arriving = ArrivingGradients(parameters, ORDERS, arrival)
    assert not arriving.may_take(is_last=True), "before there was a pass"
    with arriving.watch_pass():
        loss(parameters).backward()
    assert arriving.may_take(is_last=True)
    assert arriving.may_take(is_last=False) is (arrival == "summed")


@pytest.mark.parametrize(
    ("device", "processes", "here", "size_bytes", "expected"),
    [
        ("cuda", 2, 2, exchange.BUCKET_BYTES + 4, "exchanged"),
        ("cuda", 2, 2, exchange.BUCKET_BYTES, None),
        ("cuda", 1, 1, exchange.BUCKET_BYTES + 4, None),
        ("cpu", 2, 1, exchange.BUCKET_BYTES + 4, "exchanged"),
        ("cpu", 2, 1, exchange.BUCKET_BYTES, "summed"),
        ("cpu", 2, 2, exchange.BUCKET_BYTES + 4, "summed"),
        ("cpu", 1, 1, CACHED_BYTES + 4, "summed"),
        ("cpu", 1, 1, CACHED_BYTES, None),
    ],
)
def test_large_networks_hand_gradients_over_as_they_come(
    device: str, processes: int, here: int, size_bytes: int, expected: Arrival | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """They exchange them on GPUs and between machines, and sum them on the CPU."""
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(here))
    sizes = (size_bytes // 8, size_bytes // 4 - size_bytes // 8)
    parameters = [nn.Parameter(torch.empty(size, device="meta")) for size in sizes]
    accelerator = SimpleNamespace(device=torch.device(device), num_processes=processes)
    assert choose_arrival(parameters, accelerator) == expected
