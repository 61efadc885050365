"""Sharpness-aware minimisation against its definition, written plainly."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from accelerate import Accelerator

from tests.training.test_step import IMAGES, TARGETS, Net, do_step, weights


def gradients(model: Net) -> list[torch.Tensor]:
    model.zero_grad()
    F.cross_entropy(model(IMAGES), TARGETS).backward()
    return [
        torch.zeros_like(one) if one.grad is None else one.grad.clone()
        for one in model.parameters()
    ]


@pytest.mark.parametrize("microbatches", [1, 4])
def test_a_step_is_that_of_the_paper(microbatches: int) -> None:
    ours, theirs = Net(), Net()
    loss, _ = do_step(Accelerator(cpu=True), ours, microbatches, sam_rho=0.1)
    first_loss = F.cross_entropy(theirs(IMAGES), TARGETS).item()
    first = gradients(theirs)
    norm = torch.cat([gradient.flatten() for gradient in first]).norm()
    with torch.no_grad():
        for parameter, gradient in zip(theirs.parameters(), first, strict=True):
            parameter.add_(0.1 * gradient / norm)
    second = gradients(theirs)
    with torch.no_grad():
        for parameter, one, other in zip(theirs.parameters(), first, second, strict=True):
            parameter.sub_(0.1 * one / norm).sub_(0.5 * other)
    torch.testing.assert_close(weights(ours), weights(theirs))
    assert loss == pytest.approx(first_loss, rel=1e-5)
    plain = Net()
    do_step(Accelerator(cpu=True), plain, microbatches)
    assert not torch.allclose(weights(plain), weights(ours), atol=1e-6)


@pytest.mark.parametrize("microbatches", [1, 4])
def test_statistics_are_those_of_the_first_pass(microbatches: int) -> None:
    ours, plain = Net(norm=True), Net(norm=True)
    do_step(Accelerator(cpu=True), ours, microbatches, sam_rho=0.5)
    do_step(Accelerator(cpu=True), plain, microbatches)
    assert torch.equal(ours.norm.running_mean, plain.norm.running_mean)
    assert torch.equal(ours.norm.running_var, plain.norm.running_var)
    assert ours.norm.num_batches_tracked == 1


def test_both_passes_drop_the_same() -> None:
    """With a radius of nearly nothing the second gradient is the first."""
    ours, plain = Net(dropout=0.5), Net(dropout=0.5)
    do_step(Accelerator(cpu=True), ours, 2, sam_rho=1e-7)
    do_step(Accelerator(cpu=True), plain, 2)
    torch.testing.assert_close(weights(ours), weights(plain))
