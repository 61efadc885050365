"""Depthwise convolutions: the output of torch's own, and gradients as good."""

from __future__ import annotations

import io

import pytest
import torch
from torch import nn

from models.depthwise import DepthwiseConv2d


def _both(
    kernel_size: int, stride: int, padding: int, dtype: torch.dtype
) -> tuple[DepthwiseConv2d, nn.Conv2d]:
    ours = DepthwiseConv2d(24, kernel_size, stride=stride, padding=padding).to(dtype)
    theirs = nn.Conv2d(24, 24, kernel_size, stride, padding, groups=24, bias=False).to(dtype)
    theirs.load_state_dict(ours.state_dict())
    return ours, theirs


@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    [(torch.float64, 1e-13), (torch.float32, 1e-5), (torch.bfloat16, 1e-2)],
    ids=str,
)
@pytest.mark.parametrize("padded", [True, False])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kernel_size", [3, 5, 7])
def test_the_same_output_and_gradients_as_good(
    kernel_size: int, stride: int, padded: bool, dtype: torch.dtype, tolerance: float
) -> None:
    ours, theirs = _both(kernel_size, stride, kernel_size // 2 if padded else 0, dtype)
    images = torch.randn(3, 24, 9, 12, dtype=dtype).to(memory_format=torch.channels_last)
    mine, other = images.clone().requires_grad_(), images.clone().requires_grad_()
    output, expected = ours(mine), theirs(other)
    gradient = torch.randn_like(output)
    output.backward(gradient)
    expected.backward(gradient)
    assert torch.equal(output, expected)
    for found, wanted in ((mine.grad, other.grad), (ours.weight.grad, theirs.weight.grad)):
        assert found.dtype == wanted.dtype == dtype
        assert (found - wanted).norm() < tolerance * wanted.norm()


def test_autocast_computes_in_its_type_and_keeps_the_gradients_of_the_weights() -> None:
    ours, theirs = _both(5, 1, 2, torch.float32)
    images = torch.randn(2, 24, 8, 8)
    with torch.autocast("cpu", torch.bfloat16):
        output, expected = ours(images), theirs(images)
    assert output.dtype == torch.bfloat16
    assert torch.equal(output, expected)
    output.float().square().sum().backward()
    assert ours.weight.grad.dtype == torch.float32


@pytest.mark.parametrize("frozen", ["weight", "input"])
def test_what_is_frozen_gets_no_gradient(frozen: str) -> None:
    ours, _ = _both(5, 2, 2, torch.float32)
    ours.weight.requires_grad_(frozen != "weight")
    images = torch.randn(2, 24, 8, 8, requires_grad=frozen != "input")
    ours(images).sum().backward()
    assert (ours.weight.grad is None) == (frozen == "weight")
    assert (images.grad is None) == (frozen == "input")


def test_it_can_be_exported() -> None:
    ours, _ = _both(5, 2, 2, torch.float32)
    images = torch.randn(2, 24, 8, 8)
    buffer = io.BytesIO()
    torch.export.save(torch.export.export(ours.eval(), (images,)), buffer)
    buffer.seek(0)
    assert torch.equal(torch.export.load(buffer).module()(images), ours(images))
