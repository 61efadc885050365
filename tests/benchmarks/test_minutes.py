"""The benchmark of minutes and accuracy: that a recipe runs on tiny pictures; no times."""

from __future__ import annotations

import sys
from pathlib import Path

import minutes as benchmark
import numpy as np
import page
import pytest
from PIL import Image

from tests.conftest import REPOSITORY

SMALL_NET = '{"widths": [8, 8, 16]}'


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Red and blue noise of 32 x 32 pixels."""
    root = tmp_path_factory.mktemp("pictures")
    random = np.random.default_rng(0)
    for part, count in (("train", 60), ("test", 10)):
        for channel, name in ((0, "red"), (2, "blue")):
            (root / part / name).mkdir(parents=True)
            for number in range(count):
                pixels = random.integers(0, 100, (32, 32, 3), dtype=np.uint8)
                pixels[:, :, channel] += 100
                Image.fromarray(pixels).save(root / part / name / f"{number:02}.png")
    return root


@pytest.mark.usefixtures("forked")
def test_a_recipe_is_run_and_the_page_has_its_figures(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "figures.json"
    words = ["minutes.py", "cifar10-4", "--cifar10", str(pictures), "--output", str(output)]
    words += ["--more", "--train.batch_size", "20", "--model.args", SMALL_NET]
    words += ["--train.precision", "fp32"]
    monkeypatch.setattr(sys, "argv", words)
    monkeypatch.setattr(benchmark, "PROCESSES", 1)
    benchmark.main()
    found = page.read_figures(output)["cifar10-4"]["0"]
    assert found["epochs"] == 4
    assert found["accuracy"] == found["augmented_accuracy"] == 1
    assert found["validation_accuracy"] is None, "the recipe holds nothing out"
    assert 0 < found["train_s"] < found["process_s"]
    row = f"| `cifar10-4` | {found['parameters']:,} | 1 | {found['process_s'] / 60:.1f} |  | 1.0000"
    assert row in output.with_suffix(".md").read_text()


def test_every_case_changes_a_recipe_that_there_is() -> None:
    for case in benchmark.CASES.values():
        assert (REPOSITORY / "configs" / f"{case.recipe}.yaml").is_file()
