"""Recompute statistics of batch normalisation; tests/distributed has several processes."""

from __future__ import annotations

import pytest
import torch
from accelerate import Accelerator
from torch import nn

from trainer.data.dataset import ImageSet
from trainer.data.scaling import Scaling
from trainer.training import batch_norm_statistics

SCALING = Scaling(torch.full((1, 1, 1), 100.0), torch.full((1, 1, 1), 50.0))


def image_set(count: int) -> ImageSet:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (count, 1, 4, 4), dtype=torch.uint8, generator=generator)
    return ImageSet(pixels, torch.zeros(count, dtype=torch.int64))


def small_net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 3, 3),
        nn.BatchNorm2d(3),
        nn.Dropout(0.5),
        nn.Conv2d(3, 2, 2),
        nn.BatchNorm2d(2),
    )


def test_they_are_those_of_all_images_without_dropout() -> None:
    model, images = small_net(), image_set(400)
    batch_norm_statistics.recompute(Accelerator(cpu=True), model, images, SCALING)
    with torch.no_grad():
        inputs = SCALING.apply(images.images[:])
        first = model[0](inputs)
        normalised = nn.functional.batch_norm(first, None, None, training=True)
        second = model[3](normalised)
    for norm, features in ((model[1], first), (model[4], second)):
        assert norm.running_mean == pytest.approx(features.mean((0, 2, 3)), abs=1e-5)
        assert norm.running_var == pytest.approx(features.var((0, 2, 3)), rel=1e-4)


def test_blocks_count_by_their_samples() -> None:
    """1,201 images are three blocks, and the last is shorter."""
    model, images = small_net(), image_set(1201)
    batch_norm_statistics.recompute(Accelerator(cpu=True), model, images, SCALING)
    with torch.no_grad():
        features = model[0](SCALING.apply(images.images[:]))
    assert model[1].running_mean == pytest.approx(features.mean((0, 2, 3)), abs=1e-5)


@pytest.mark.parametrize(("block_samples", "count"), [(1, 41), (2, 41), (3, 400)])
def test_small_blocks_have_a_deviation(block_samples: int, count: int) -> None:
    """Of a single image the norm, of one value, would have none; 400 are 134 blocks."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 3, 4), nn.BatchNorm2d(3))
    images = image_set(count)
    batch_norm_statistics.recompute(
        Accelerator(cpu=True), model, images, SCALING, block_samples=block_samples
    )
    with torch.no_grad():
        features = model[0](SCALING.apply(images.images[:]))
    assert model[1].running_mean == pytest.approx(features.mean((0, 2, 3)), abs=1e-5)
    assert bool(model[1].running_var.isfinite().all())


def test_nothing_else_changes() -> None:
    model = small_net()
    model[1].momentum = None
    model[3].eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    batch_norm_statistics.recompute(Accelerator(cpu=True), model, image_set(20), SCALING)
    after = model.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {f"{n}.running_{kind}" for n in (1, 4) for kind in ("mean", "var")}
    assert [model[1].momentum, model[4].momentum] == [None, 0.1]
    assert [module.training for module in model] == [True, True, True, False, True]


@pytest.mark.parametrize("frozen", ["evaluation", "momentum"])
def test_a_frozen_norm_keeps_its_own(frozen: str) -> None:
    model = small_net()
    if frozen == "evaluation":
        model[1].eval()
    else:
        model[1].momentum = 0
    model[1].running_mean.fill_(7.0)
    batch_norm_statistics.recompute(Accelerator(cpu=True), model, image_set(20), SCALING)
    assert model[1].running_mean.tolist() == [7.0] * 3
    assert model[4].running_mean.tolist() != [0.0] * 2


def test_a_norm_that_is_used_twice_gets_the_mean_of_both() -> None:
    torch.manual_seed(0)
    norm, images = nn.BatchNorm2d(1), image_set(20)
    model = nn.Sequential(norm, nn.Conv2d(1, 1, 1), norm)
    batch_norm_statistics.recompute(Accelerator(cpu=True), model, images, SCALING)
    with torch.no_grad():
        first = SCALING.apply(images.images[:])
        second = model[1](nn.functional.batch_norm(first, None, None, training=True))
    assert norm.running_mean.item() == pytest.approx(
        float(first.mean() + second.mean()) / 2, abs=1e-5
    )


def test_a_model_without_batch_norm_is_not_even_called() -> None:
    batch_norm_statistics.recompute(Accelerator(cpu=True), nn.ModuleList(), image_set(3), SCALING)
