"""Which weights are chosen, and what is said of them; tests/test_averaging.py has the averages."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.runs import Run, train_here


def test_test_augmentation_stands_apart(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It changes neither what is chosen, nor the accuracy, nor the predictions that are written."""
    short = ["--train.epochs", "2", "--data.train_size", "300"]
    assert train_here(tmp_path / "plain", *short) == 0
    assert "augmented" not in capsys.readouterr().out
    assert train_here(tmp_path / "flip", *short, "--data.test_augment", "flip") == 0
    plain, flip = (Run(tmp_path / name, 0) for name in ("plain", "flip"))
    test = flip.json("results.json")["test"]
    augmented = test.pop("augmented")
    assert test == plain.json("results.json")["test"]
    assert "augmented" not in plain.json("results.json")["test"]
    with np.load(flip.folder / "predictions.npz") as arrays:
        assert np.mean(arrays["target"] == arrays["predicted"]) == test["accuracy"]
    assert augmented["by"] == "flip"
    # Digits mean something else in a mirror.
    assert 0.1 < augmented["accuracy"] < test["accuracy"]
    assert augmented["loss"] != test["loss"]
    line = f"augmented      {100 * augmented['accuracy']:.2f} %  (with mirror images)"
    assert line in capsys.readouterr().out.splitlines()
    assert "Augmented accuracy" in (flip.folder / "report.html").read_text()
    assert "Augmented accuracy" not in (plain.folder / "report.html").read_text()
