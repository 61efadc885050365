"""Optimisers: groups, and Muon against its own definition."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import get_args

import pytest
import torch
from torch import nn

from trainer.config.schema import OptimizerConfig, OptimizerName
from trainer.training.optimizers import Muon, build, orthogonalise


def small_net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 8, 3), nn.Flatten(), nn.Linear(8, 3)
    )


@pytest.mark.parametrize("name", get_args(OptimizerName))
def test_every_optimiser_learns_and_repeats_itself(name: OptimizerName) -> None:
    torch.manual_seed(0)
    images, targets = torch.randn(30, 1, 5, 5), torch.randint(0, 3, (30,))
    ends = []
    for _ in range(2):
        model = small_net()
        optimizer = build(OptimizerConfig(name, lr=0.01), model, 3)
        losses = []
        for _ in range(30):
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(images), targets)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        assert losses[-1] < 0.6 * losses[0]
        ends.append(torch.cat([parameter.flatten() for parameter in model.parameters()]))
    assert torch.equal(*ends)


@pytest.mark.parametrize("name", get_args(OptimizerName))
def test_biases_and_norms_are_not_decayed(name: OptimizerName) -> None:
    model = small_net()
    optimizer = build(OptimizerConfig(name, lr=0.1, weight_decay=0.5, momentum=0.0), model, 3)
    before = [parameter.clone() for parameter in model.parameters()]
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    for old, parameter in zip(before, model.parameters(), strict=True):
        if parameter.ndim >= 2:
            assert not torch.equal(old, parameter)
        else:
            assert torch.equal(old, parameter)


@pytest.mark.parametrize("clipped", [False, True])
@pytest.mark.parametrize("name", get_args(OptimizerName))
def test_a_step_whose_scaled_gradients_overflow_is_left_out(
    name: OptimizerName, clipped: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the device: the scaler reads nothing, and the steps around it are as without it."""
    torch.manual_seed(0)
    images = torch.rand(6, 1, 5, 5)

    def train(factors: list[float], scaler: torch.amp.GradScaler | None) -> list[torch.Tensor]:
        model = small_net()
        optimizer = build(OptimizerConfig(name, lr=0.01, weight_decay=0.1), model, 3)
        for factor in factors:
            optimizer.zero_grad()
            loss = (model(images) * factor).square().mean()
            (scaler.scale(loss) if scaler else loss).backward()
            if scaler and clipped:
                scaler.unscale_(optimizer)
            if scaler:
                scaler.step(optimizer)
                scaler.update()
            else:
                optimizer.step()
        return [
            *model.parameters(),
            *(value for state in optimizer.state.values() for value in state.values()),
        ]

    plain = train([1.0, 1.0, 1.0], None)
    monkeypatch.setattr(torch.Tensor, "item", None)
    for factors in ([1e30, 1.0, 1.0, 1.0], [1.0, 1e30, 1.0, 1.0]):
        scaled = train(factors, torch.amp.GradScaler("cpu"))
        assert all(torch.equal(*both) for both in zip(plain, scaled, strict=True))


def test_a_first_step_that_overflows_leaves_the_first_momentum_of_dampening_to_the_next() -> None:
    """It is the whole gradient. The host decides until there is one, and then waits no more."""

    def train(factors: list[float], scaler: torch.amp.GradScaler | None) -> list[torch.Tensor]:
        model = small_net()
        config = OptimizerConfig("sgd", lr=0.01, momentum=0.9, nesterov=False)
        optimizer = build(replace(config, args={"dampening": 0.5}), model, 3)
        waits = []
        for factor in factors:
            for number, parameter in enumerate(model.parameters(), start=1):
                scale = scaler.scale(torch.ones(())).item() if scaler else 1.0
                parameter.grad = torch.full_like(parameter, number * factor * scale)
            waits.append(not optimizer._step_supports_amp_scaling)
            if scaler:
                scaler.step(optimizer)
                scaler.update()
            else:
                optimizer.step()
        assert waits == ([True, True, False, False] if scaler else [True, False])
        return [*model.parameters(), *(one["momentum_buffer"] for one in optimizer.state.values())]

    plain = train([1.0, 2.0], None)
    scaled = train([math.inf, 1.0, math.inf, 2.0], torch.amp.GradScaler("cpu", init_scale=1024.0))
    assert all(torch.equal(*both) for both in zip(plain, scaled, strict=True))


@pytest.mark.parametrize("shape", [(8, 30), (30, 8), (5, 5)])
def test_orthogonalise_brings_the_singular_values_near_one(shape: tuple[int, int]) -> None:
    torch.manual_seed(0)
    matrix = torch.randn(shape)
    result = orthogonalise(matrix)
    assert result.shape == shape
    values = torch.linalg.svdvals(result)
    assert values.min() > 0.3
    assert values.max() < 1.3
    # It keeps the singular vectors: the polar factor is the nearest orthogonal matrix.
    left, _, right = torch.linalg.svd(matrix, full_matrices=False)
    cosine = nn.functional.cosine_similarity(result.flatten(), (left @ right).flatten(), dim=0)
    assert cosine > 0.95


def test_groups_that_are_not_for_muon_are_updated_by_adamw() -> None:
    """The classifier and the vectors take the steps of torch's own AdamW."""
    torch.manual_seed(0)
    ours, theirs = (nn.Linear(6, 4) for _ in range(2))
    theirs.load_state_dict(ours.state_dict())
    group = {"params": list(ours.parameters()), "weight_decay": 0.1}
    muon = Muon([group], 0.01, momentum=0.9, nesterov=True)
    adamw = torch.optim.AdamW(theirs.parameters(), 0.01, weight_decay=0.1)
    for step in range(20):
        torch.manual_seed(step)
        inputs = torch.randn(16, 6)
        for model, optimizer in ((ours, muon), (theirs, adamw)):
            optimizer.zero_grad()
            model(inputs).square().mean().backward()
            optimizer.step()
    torch.testing.assert_close(ours.weight, theirs.weight, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(ours.bias, theirs.bias, rtol=1e-4, atol=1e-6)


def test_a_parameter_without_gradient_stays() -> None:
    model = small_net()
    optimizer = build(OptimizerConfig("muon", lr=0.1, weight_decay=0.5), model, 3)
    before = model[0].weight.clone()
    model[4](torch.randn(2, 8)).sum().backward()
    optimizer.step()
    assert torch.equal(model[0].weight, before)


def test_orthogonalise_is_the_newton_schulz_iteration_on_the_whole_matrix() -> None:
    """Also where directions are missing, as the gradients of dead filters are."""
    torch.manual_seed(0)
    full = torch.randn(24, 100)
    for matrix in (full, full.t(), torch.cat([full[:20], torch.zeros(4, 100)]), full[:1]):
        expected = matrix.double() / matrix.double().norm()
        for _ in range(5):
            gram = expected @ expected.t()
            expected = 3.4445 * expected + (-4.7750 * gram + 2.0315 * gram @ gram) @ expected
        torch.testing.assert_close(orthogonalise(matrix), expected.float(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("args", [{}, {"amsgrad": True}])
@pytest.mark.parametrize("name", ["adam", "adamw"])
def test_adam_copies_no_weights_in_channels_last(
    name: OptimizerName, args: dict[str, bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And gives the bits of torch's, also for a gradient that lies otherwise than its weights."""
    came: list[bool] = []
    kernel = getattr(torch, f"_fused_{name}_")

    def note(*tensors: list[torch.Tensor], **arguments: object) -> None:
        came.append(all(one.is_contiguous() for part in tensors[:5] for one in part))
        kernel(*tensors, **arguments)

    monkeypatch.setattr(torch, f"_fused_{name}_", note)
    ends = []
    kinds = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}
    for ours in (True, False):
        model = small_net().to(memory_format=torch.channels_last)
        if ours:
            optimizer = build(OptimizerConfig(name, lr=0.01, args=args), model, 3)
        else:
            decay = OptimizerConfig(name).weight_decay
            groups = [
                {"params": [one], "weight_decay": decay if one.ndim > 1 else 0.0}
                for one in model.parameters()
            ]
            optimizer = kinds[name](groups, 0.01, fused=True, **args)
        generator = torch.Generator().manual_seed(1)
        for layout in (torch.channels_last, torch.channels_last, torch.contiguous_format):
            for parameter in model.parameters():
                gradient = torch.randn(parameter.shape, generator=generator)
                if gradient.ndim == 4:
                    gradient = gradient.contiguous(memory_format=layout)
                parameter.grad = gradient
            optimizer.step()
        ends.append(torch.cat([one.flatten() for one in model.parameters()]))
        if ours:
            assert came[:2] == [True, True]
    assert torch.equal(*ends)
