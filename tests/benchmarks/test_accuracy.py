"""The benchmark of the recipes: that a recipe runs and the page tells its figures; no times."""

from __future__ import annotations

import sys
from pathlib import Path

import accuracy as benchmark
import page
import pytest


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("accuracy") / "figures.json"
    words = ["accuracy.py", "lab_fashion_mnist", "--seeds", "3", "4", "--output", str(output)]
    words += ["--more", "--data.name", "digits", "--data.train_size", "300", "--train.epochs", "2"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", words)
        benchmark.main()
    return output


def test_every_seed_is_kept(measured: Path) -> None:
    runs = page.read_figures(measured)["lab_fashion_mnist"]
    assert list(runs) == ["3", "4"]
    for one in runs.values():
        assert 0.2 < one["accuracy"] < 1
        assert len(one["per_class"]) == 10
        assert 0 < one["train_s"] < one["process_s"]
        assert one["cpu_s"] > 1, "a process that imports torch takes more"


def test_the_page_has_mean_deviation_worst_class_and_the_published_rows(measured: Path) -> None:
    runs = list(page.read_figures(measured)["lab_fashion_mnist"].values())
    text = measured.with_suffix(".md").read_text()
    accuracies = [one["accuracy"] for one in runs]
    assert f"{sum(accuracies) / 2:.4f} ± {abs(accuracies[0] - accuracies[1]) / 2**0.5:.4f}" in text
    per_class = {name: (runs[0]["per_class"][name] + runs[1]["per_class"][name]) / 2
                 for name in runs[0]["per_class"]}  # fmt: skip
    worst = min(per_class, key=lambda name: per_class[name])
    assert f"| {worst} | **{per_class[worst]:.3f}** |" in text
    assert "| WideResNet-40-4 | all 60,000 | 0.967 |" in text
    rows = [line for line in text.splitlines() if line.endswith((" 0.835 |", " 0.967 |"))]
    assert "0.835" in rows[0] and "0.967" in rows[-1], "the best last"


def test_an_unknown_recipe_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit):
        patch.setattr(sys, "argv", ["accuracy.py", "fashion_mnits"])
        benchmark.main()
    assert "fashion_mnits: not a recipe; there are fashion_mnist, " in capsys.readouterr().err
