"""Shortcuts around pairs of convolutions in quicknet."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import models


def build(widths: list[int], **arguments: Any) -> nn.Module:
    torch.manual_seed(0)
    arguments = {"widths": widths, "activation": "relu"} | arguments
    return models.create("quicknet", arguments, num_classes=10, in_channels=4, image_size=(8, 8))


def test_a_pair_changes_nothing_at_first_and_learns_to() -> None:
    plain, network = build([4], pooled=[0]), build([4, 4, 4], pooled=[2], residual=True)
    network.load_state_dict(plain.state_dict(), strict=False)
    images, targets = torch.rand(3, 4, 8, 8), torch.tensor([1, 5, 7])
    assert torch.equal(network(images), plain(images))
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    for _ in range(2):  # the first step lets the pair's result through
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(images), targets).backward()
        optimizer.step()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None and parameter.grad.any(), name


@pytest.mark.parametrize(
    ("widths", "pairs"),
    [([4, 4, 4], 1), ([4, 4, 4, 4], 1), ([4, 4, 4, 4, 4], 2), ([4, 8, 8, 8], 1), ([4, 8, 8], 0)],
)
def test_two_that_keep_the_width_are_a_pair(widths: list[int], pairs: int) -> None:
    with_shortcuts = build(widths, pooled=[], residual=True)
    without = build(widths, pooled=[])
    sums = [name for name, _ in with_shortcuts.named_modules() if name.endswith("norm2")]
    assert len(sums) == pairs
    sizes = [sum(p.numel() for p in net.parameters()) for net in (with_shortcuts, without)]
    assert sizes[0] == sizes[1], "the same convolutions"


def test_pooling_between_the_two_is_refused() -> None:
    with pytest.raises(ValueError, match=r"pooled has 1, the first of two .* may have 2\.$"):
        build([4, 4, 4], pooled=[1], residual=True)
