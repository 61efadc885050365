"""Mixup: pairs over the whole step, and what training on them does."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.runs import Run, train_here
from trainer import mixup


def test_pairs_are_a_permutation_drawn_by_the_step() -> None:
    partners, weights = mixup.draw_pairs(seed=1, step=5, samples=300, alpha=1.0)
    assert sorted(partners.tolist()) == list(range(300))
    assert 0 <= weights.min() < 0.1 < 0.9 < weights.max() <= 1
    again = mixup.draw_pairs(seed=1, step=5, samples=300, alpha=1.0)
    assert torch.equal(again[0], partners)
    assert torch.equal(again[1], weights)
    for seed, step in ((2, 5), (1, 6)):
        other = mixup.draw_pairs(seed=seed, step=step, samples=300, alpha=1.0)
        assert not torch.equal(other[0], partners)
        assert not torch.equal(other[1], weights)


def test_images_and_targets_are_mixed_by_the_same_weights() -> None:
    weights = torch.tensor([1.0, 0.25])
    images = torch.tensor([[8.0], [8.0]]).view(2, 1, 1, 1)
    assert mixup.mix(images, images * 0, weights).flatten().tolist() == [8.0, 2.0]
    targets = mixup.mix_targets(torch.tensor([0, 1]), torch.tensor([2, 2]), weights, classes=3)
    assert targets.tolist() == [[1.0, 0.0, 0.0], [0.0, 0.25, 0.75]]
    same = mixup.mix_targets(torch.tensor([1, 1]), torch.tensor([1, 1]), weights, classes=3)
    assert same.tolist() == [[0.0, 1.0, 0.0]] * 2


def test_bits_do_not_depend_on_where_a_tensor_ends() -> None:
    """A process with fewer samples has shorter tensors, and the same bits in them."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(37, 1, 7, 5, generator=generator)
    weights = torch.rand(37, generator=generator)
    whole = mixup.mix(images, images.flip(0), weights)
    for size in (1, 3, 20):
        assert torch.equal(
            mixup.mix(images[:size], images.flip(0)[:size], weights[:size]), whole[:size]
        )


def test_a_run_learns_with_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train_here(tmp_path / "run", "--data.mixup", "0.2") == 0
    run = Run(tmp_path / "run", 0)
    assert run.json("results.json")["test"]["accuracy"] > 0.85
    epochs = run.metrics("epoch")
    assert epochs[-1]["train_accuracy"] < epochs[-1]["validation_accuracy"]
