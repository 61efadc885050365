"""Gradients that leave as soon as they are there are those of an ordinary backward pass."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from tests.distributed.fake_ranks import be_rank
from trainer.training import exchange
from trainer.training.early_exchange import EarlyExchange, can_overlap, present_mask
from trainer.training.step_sum import StepSum

ORDERS = [[0, 2, 3, 1], [0], [1, 0]]
"""how the dimensions of the parameters below lie in the vector"""
ONE, OTHER = torch.tensor([1.0, 2.0]), torch.tensor([10.0, 20.0])
"""what comes before the mask and the gradients in the vectors of two micro-batches"""


@pytest.fixture(autouse=True)
def _process_group() -> Iterator[None]:
    with be_rank(0, 1):
        yield


@pytest.fixture
def parameters() -> list[nn.Parameter]:
    torch.manual_seed(0)
    return [nn.Parameter(torch.rand(*shape)) for shape in ((2, 3, 4, 5), (6,), (3, 2))]


def loss(parameters: list[nn.Parameter]) -> torch.Tensor:
    """Of the last parameter nothing comes."""
    return (parameters[0] ** 2).sum() * 3 + parameters[1].sum() * 5


def gradients(parameters: list[nn.Parameter]) -> list[torch.Tensor]:
    return [6 * parameters[0].detach(), torch.full((6,), 5.0), torch.zeros(3, 2)]


def start(early: EarlyExchange, parameters: list[nn.Parameter]) -> StepSum:
    """Begin the last of two leaves; the first one has a gradient of ones for each parameter."""
    sums = StepSum(2)
    pairs = zip(parameters, ORDERS, strict=True)
    ones = [torch.ones_like(one.permute(order)) for one, order in pairs]
    sums.add(0, [ONE, torch.ones(3), *ones])
    early.begin(sums, 1, [torch.empty(2)])
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
    parameters: list[nn.Parameter],
) -> None:
    early = EarlyExchange(parameters, ORDERS)
    assert not early.is_safe, "before there was a pass"
    for _ in range(2):
        with early.watch_pass():
            loss(parameters).backward()
        assert early.is_safe
        for parameter, gradient in zip(parameters[:2], gradients(parameters), strict=False):
            assert torch.equal(parameter.grad, gradient), "an ordinary pass keeps them"
            parameter.grad = None
    for _ in range(2):
        sums = start(early, parameters)
        with early.watch_pass():
            loss(parameters).backward()
        assert early.complete([OTHER]) == {2}
        check(sums, parameters, [1, 1, 0], gradients(parameters))
    assert early.is_safe


def test_a_micro_batch_without_images_has_no_gradients(parameters: list[nn.Parameter]) -> None:
    early = EarlyExchange(parameters, ORDERS)
    with early.watch_pass():
        loss(parameters).backward()
    for parameter in parameters:
        parameter.grad = None
    sums = start(early, parameters)
    assert early.complete([OTHER]) == {0, 1, 2}
    check(sums, parameters, [0, 0, 0], [torch.zeros_like(one) for one in parameters])


def test_the_last_micro_batch_may_be_the_only_one(parameters: list[nn.Parameter]) -> None:
    early, sums = EarlyExchange(parameters, ORDERS), StepSum(1)
    early.begin(sums, 0, [torch.empty(2)])
    with early.watch_pass():
        loss(parameters).backward()
    assert early.complete([OTHER]) == {2}
    first, present, *found = sums.finish()
    assert (first.tolist(), present.tolist()) == (OTHER.tolist(), [1, 1, 0])
    for one, order, gradient in zip(found, ORDERS, gradients(parameters), strict=True):
        assert torch.equal(one, gradient.permute(order))


def test_the_mask_is_where_the_parameters_are() -> None:
    early = EarlyExchange([nn.Parameter(torch.empty(1, device="meta"))], [[0]])
    assert early._mask(()).device.type == "meta"


def test_only_gradients_of_a_watched_pass_leave(parameters: list[nn.Parameter]) -> None:
    """Not those of a pass for something else, nor any after the hooks were taken off."""
    early = EarlyExchange(parameters, ORDERS)
    nothing = [torch.zeros_like(one) for one in parameters]

    def nothing_leaves() -> None:
        sums = start(early, parameters)
        loss(parameters).backward()
        assert parameters[1].grad is not None
        for parameter in parameters:
            parameter.grad = None
        assert early.complete([OTHER]) == {0, 1, 2}
        check(sums, parameters, [0, 0, 0], nothing)

    nothing_leaves()
    with early.watch_pass():
        pass
    nothing_leaves()
    early.remove()
    with early.watch_pass():
        nothing_leaves()


def test_a_gradient_that_comes_in_two_parts_may_not_leave(parameters: list[nn.Parameter]) -> None:
    early = EarlyExchange(parameters, ORDERS)
    with early.watch_pass():
        loss(parameters).backward()
        parameters[1].sum().backward()
    with early.watch_pass():
        loss(parameters).backward()
    assert not early.is_safe, "it may happen again"
    early = EarlyExchange(parameters, ORDERS)
    sums = start(early, parameters)
    with pytest.raises(RuntimeError) as caught, early.watch_pass():
        loss(parameters).backward()
        parameters[1].sum().backward()
    assert str(caught.value) == (
        "the gradient of parameter 1 came in two parts, after passes in which it came in one; its "
        "first part was exchanged already"
    )
    sums.finish()  # ends its thread


def test_the_mask_is_made_on_the_device() -> None:
    cpu, meta = torch.device("cpu"), torch.device("meta")
    mask = present_mask(4, {1, 3}, cpu)
    assert mask.tolist() == [1.0, 0.0, 1.0, 0.0]
    assert mask.dtype == torch.float32
    assert present_mask(2, (), cpu).tolist() == [1.0, 1.0]
    assert {present_mask(2, missing, meta).device for missing in ((), {1})} == {meta}


@pytest.mark.parametrize(
    ("device", "processes", "here", "more", "expected"),
    [
        ("cuda", 2, 2, 4, True),
        ("cuda", 2, 2, 0, False),
        ("cuda", 1, 1, 4, False),
        ("cpu", 2, 2, 4, False),
        ("cpu", 2, 1, 4, True),
        ("cpu", 4, 2, 0, False),
        ("cpu", 1, 1, 4, False),
    ],
)
def test_an_early_exchange_is_worth_it_for_large_networks_on_gpus_or_several_machines(
    device: str, processes: int, here: int, more: int, expected: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(here))
    sizes = (exchange.BUCKET_BYTES // 8, (exchange.BUCKET_BYTES // 2 + more) // 4)
    parameters = [nn.Parameter(torch.empty(size, device="meta")) for size in sizes]
    accelerator = SimpleNamespace(device=torch.device(device), num_processes=processes)
    assert can_overlap(parameters, accelerator) is expected
