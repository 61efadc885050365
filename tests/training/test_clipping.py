"""Limits of the gradient against their definitions."""

from __future__ import annotations

import pytest
import torch
from accelerate import Accelerator
from torch import nn

from trainer.config.schema import TrainConfig
from trainer.training.clipping import clip_adaptively, clip_gradients


def parameter(values: list[list[float]], gradient: list[list[float]]) -> nn.Parameter:
    made = nn.Parameter(torch.tensor(values, dtype=torch.float32))
    made.grad = torch.tensor(gradient, dtype=torch.float32)
    return made


def test_adaptive_clipping_is_by_filter() -> None:
    """Of norms 5, 5 and 0 the gradients may have 0.5, 0.5 and a tenth of the smallest norm."""
    weights = parameter([[3, 4], [3, 4], [0, 0]], [[6, 8], [0.1, 0], [1, 0]])
    clip_adaptively([weights], 0.1)
    assert weights.grad is not None
    expected = torch.tensor([[0.3, 0.4], [0.1, 0.0], [1e-4, 0.0]])
    torch.testing.assert_close(weights.grad, expected)


def test_adaptive_clipping_of_filters_and_of_vectors() -> None:
    filters = nn.Parameter(torch.ones(2, 3, 2, 2))
    filters.grad = torch.stack([torch.full((3, 2, 2), 9.0), torch.full((3, 2, 2), 0.001)])
    vector = nn.Parameter(torch.ones(4))
    vector.grad = torch.full((4,), 3.0)
    without = nn.Parameter(torch.ones(4))
    clip_adaptively([filters, vector, without], 0.02)
    assert filters.grad[0] == pytest.approx(torch.full((3, 2, 2), 0.02))
    assert torch.equal(filters.grad[1], torch.full((3, 2, 2), 0.001)), "a small one stays"
    assert vector.grad == pytest.approx(torch.full((4,), 0.02))
    assert without.grad is None


def test_each_mode_limits_what_it_says() -> None:
    accelerator = Accelerator(cpu=True)
    found = {}
    for mode in ("norm", "value", "agc"):
        body = parameter([[3, 4]], [[6, -8]])
        head = parameter([[3, 4]], [[0, 0.7]])
        config = TrainConfig(clip_norm=0.5, clip_mode=mode)  # type: ignore[arg-type]
        clip_gradients(accelerator, [body, head], [head], config)
        assert body.grad is not None and head.grad is not None
        found[mode] = (body.grad, head.grad)
    whole = torch.cat(found["norm"]).norm()
    assert whole.item() == pytest.approx(0.5, rel=1e-4)
    assert torch.equal(found["value"][0], torch.tensor([[0.5, -0.5]]))
    assert torch.equal(found["value"][1], torch.tensor([[0.0, 0.5]]))
    torch.testing.assert_close(found["agc"][0], torch.tensor([[1.5, -2.0]]))
    assert torch.equal(found["agc"][1], torch.tensor([[0.0, 0.7]])), "the head is left out"
