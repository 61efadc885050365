"""Stochastic depth and squeeze-and-excitation in the residual nets."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import models
from models.resnet import StochasticDepth

LIGHT: dict[str, dict[str, Any]] = {
    "preact_resnet": {"depth": 8},
    "wide_resnet": {"depth": 10, "widen_factor": 1},
}
NETS = list(LIGHT)


def seeded(name: str, **arguments: Any) -> nn.Module:
    """With few layers, and always the same first weights where it has the same parameters."""
    torch.manual_seed(0)
    arguments = LIGHT[name] | arguments
    return models.create(name, arguments, num_classes=10, in_channels=1, image_size=(8, 8))


def count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize("name", NETS)
def test_stochastic_depth_changes_neither_weights_nor_evaluation(name: str) -> None:
    plain, deep = seeded(name).eval(), seeded(name, drop_path=0.9).eval()
    images = torch.rand(4, 1, 8, 8)
    assert list(plain.state_dict()) == list(deep.state_dict())
    assert torch.equal(plain(images), deep(images))
    assert torch.equal(deep(images), deep(images))
    assert not torch.equal(deep.train()(images), deep(images))
    assert torch.equal(plain.train()(images), plain(images))


@pytest.mark.parametrize("name", NETS)
def test_samples_are_left_out_more_often_the_deeper_the_block(name: str) -> None:
    network = seeded(name, drop_path=0.6)
    shares = []

    def look(module: nn.Module, inputs: tuple[torch.Tensor], output: torch.Tensor) -> None:
        residual = inputs[0]
        left_out = (output == 0).all(3).all(2).all(1)
        keep = 1 - 0.2 * (len(shares) + 1)
        torch.testing.assert_close(output[~left_out], residual[~left_out] / keep)
        shares.append(left_out.double().mean().item())

    for module in network.modules():
        if isinstance(module, StochasticDepth):
            module.register_forward_hook(look)
    network(torch.rand(2000, 1, 4, 4))
    assert shares == pytest.approx([0.2, 0.4, 0.6], abs=0.05)


def test_which_samples_are_left_out_follows_from_torchs_seed() -> None:
    network = seeded("wide_resnet", drop_path=0.5)
    images = torch.rand(32, 1, 8, 8)
    logits = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        logits.append(network(images))
    assert torch.equal(logits[0], logits[1])
    assert not torch.equal(logits[0], logits[2])


def test_stochastic_depth_keeps_the_layout_and_the_type() -> None:
    residual = torch.rand(8, 6, 4, 4, dtype=torch.bfloat16).to(memory_format=torch.channels_last)
    output = StochasticDepth(0.5).train()(residual)
    assert output.is_contiguous(memory_format=torch.channels_last)
    assert output.dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("arguments", "squeezed"),
    [({"width": 16}, [8, 8, 8]), ({"width": 64}, [8, 8, 16]), ({"width": 256}, [16, 32, 64])],
)
def test_squeeze_and_excitation_adds_two_small_layers_to_each_block(
    arguments: dict[str, int], squeezed: list[int]
) -> None:
    added = 0
    for stage, inner in enumerate(squeezed):
        channels = arguments["width"] * 2**stage
        added += 2 * channels * inner + inner + channels
    plain = seeded("preact_resnet", **arguments)
    scaled = seeded("preact_resnet", **arguments, squeeze_excitation=True)
    assert count(scaled) - count(plain) == added


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("image_size", [(1, 1), (8, 8), (28, 20)])
def test_with_both_every_parameter_learns(name: str, image_size: tuple[int, int]) -> None:
    both = {"drop_path": 0.1, "squeeze_excitation": True}
    network = seeded(name, **both)
    models.check_output(network, num_classes=10, in_channels=1, image_size=image_size)
    loss = nn.functional.cross_entropy(network(torch.randn(64, 1, 8, 8)), torch.arange(64) % 10)
    torch.autograd.backward(loss)
    for key, parameter in network.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), key
        assert parameter.grad.abs().sum() > 0, key


@pytest.mark.parametrize("name", NETS)
def test_squeeze_and_excitation_scales_each_residual_channel_by_less_than_one(name: str) -> None:
    network = seeded(name, squeeze_excitation=True)
    scales = []

    def look(module: nn.Module, inputs: tuple[torch.Tensor], output: torch.Tensor) -> None:
        features = inputs[0]
        scale = (output * features).sum((2, 3)) / features.square().sum((2, 3))
        torch.testing.assert_close(output, features * scale[:, :, None, None])
        scales.append(scale)

    for key, module in network.named_modules():
        if key.endswith(".scale"):
            module.register_forward_hook(look)
    network(torch.randn(16, 1, 8, 8))
    assert len(scales) == 3
    for scale in scales:
        assert 0 < scale.min() < scale.max() < 1
