"""Recipes that are too large to be tried out in full."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.conftest import REPOSITORY
from tests.runs import Run, train_here


def test_the_wide_resnet_recipe_takes_two_steps(tmp_path: Path) -> None:
    """The real net and optimiser, a milestone between the steps, and few random images."""
    random = np.random.default_rng(0)
    for part, count in (("train", 12), ("test", 4)):
        images = random.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        np.save(tmp_path / f"few_{part}_features.npy", images)
        np.save(tmp_path / f"few_{part}_targets.npy", np.arange(count) % 4)
    more = ["--data.name", "npy", "--data.root", str(tmp_path), "--data.validation_size", "4"]
    more += ["--train.batch_size", "4", "--train.epochs", "1", "--schedule.milestones", "[0.5]"]
    # Accelerate keeps one precision for a process, and other tests share this one.
    more += ["--train.precision", "fp32"]
    recipe = REPOSITORY / "configs" / "fashion_mnist_wrn.yaml"
    assert train_here(tmp_path / "run", *more, config=recipe) == 0
    run = Run(tmp_path / "run", 0)
    assert [step["lr"] for step in run.metrics("step")] == pytest.approx([0.1, 0.02])
    assert run.json("results.json")["model"]["parameters"] == pytest.approx(8.9e6, rel=0.01)


def test_the_recipe_of_photographs_takes_some_steps_at_each_size(tmp_path: Path) -> None:
    """The real net and transforms, and few random pictures of different shapes."""
    random = np.random.default_rng(0)
    for part, count in (("train", 16), ("validation", 4), ("test", 4)):
        for name in ("cat", "dog"):
            (tmp_path / part / name).mkdir(parents=True)
            for number in range(count):
                shape = (40 + number, 60 - number, 3)
                pixels = random.integers(0, 256, shape, dtype=np.uint8)
                Image.fromarray(pixels).save(tmp_path / part / name / f"{number:02}.jpg")
    more = ["--data.root", str(tmp_path), "--data.cache", "none", "--data.image_size", "40"]
    more += ["--data.image_size_schedule", "[[1, 32], [2, 40]]", "--data.store_size", "48"]
    more += ["--train.batch_size", "16", "--train.epochs", "2"]
    # Accelerate keeps one precision for a process, and other tests share this one.
    more += ["--train.precision", "fp32"]
    assert train_here(tmp_path / "run", *more, config=REPOSITORY / "configs" / "photos.yaml") == 0
    run = Run(tmp_path / "run", 0)
    assert len(run.metrics("step")) == 4
    assert run.json("results.json")["model"]["parameters"] == pytest.approx(2.8e6, rel=0.01)
