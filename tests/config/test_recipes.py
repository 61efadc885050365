"""Recipes that are too large to be tried out in full."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.conftest import REPOSITORY
from tests.runs import Run, train_here


def test_the_wide_resnet_recipe_takes_two_steps(tmp_path: Path) -> None:
    """The real net and optimiser, a milestone between the steps, and few random images."""
    random = np.random.default_rng(0)
    for part, count in (("train", 40), ("test", 8)):
        images = random.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        np.save(tmp_path / f"few_{part}_features.npy", images)
        np.save(tmp_path / f"few_{part}_targets.npy", np.arange(count) % 4)
    more = ["--data.name", "npy", "--data.root", str(tmp_path), "--data.validation_size", "8"]
    more += ["--train.batch_size", "16", "--train.epochs", "1", "--schedule.milestones", "[0.5]"]
    # Accelerate keeps one precision for a process, and other tests share this one.
    more += ["--train.precision", "fp32"]
    recipe = REPOSITORY / "configs" / "fashion_mnist_wrn.yaml"
    assert train_here(tmp_path / "run", *more, config=recipe) == 0
    run = Run(tmp_path / "run", 0)
    assert [step["lr"] for step in run.metrics("step")] == pytest.approx([0.1, 0.02])
    assert run.json("results.json")["model"]["parameters"] == pytest.approx(8.9e6, rel=0.01)
