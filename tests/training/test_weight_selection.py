"""Which weights are chosen, and what is said of them; test_averaging.py has the averages."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_digits

from tests.runs import Run, train_here


@pytest.mark.usefixtures("report")
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


@pytest.mark.parametrize("average", [[], ["--train.average_epochs", "2"]])
def test_training_never_touches_the_test_images(average: list[str], tmp_path: Path) -> None:
    """Other test images, as many as one likes: the same weights, chosen by the same validation."""
    images, targets = load_digits(return_X_y=True)
    pixels = (images.reshape(-1, 8, 8) * 15.9).astype(np.uint8)
    runs = []
    for name, test in (("one", slice(400, 500)), ("other", slice(500, 1200))):
        folder = tmp_path / name
        folder.mkdir()
        for part, chosen in (("train", slice(0, 400)), ("test", test)):
            np.save(folder / f"d_{part}_features.npy", pixels[chosen])
            np.save(folder / f"d_{part}_targets.npy", targets[chosen])
        more = ["--data.name", "npy", "--data.root", str(folder), "--train.epochs", "3", *average]
        assert train_here(folder / "run", *more) == 0
        runs.append(Run(folder / "run", 0))
    one, other = (run.json("results.json") for run in runs)
    assert one["test"]["samples"] == 100 and other["test"]["samples"] == 700
    for key in ("weights_sha256", "final_weights_sha256", "validation"):
        assert one[key] == other[key], key
    assert runs[0].metrics("step") == runs[1].metrics("step")
    assert one["test"]["accuracy"] != other["test"]["accuracy"]
