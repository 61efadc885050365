"""Temperature scaling: fitted on validation, kept with the model, used by whatever asks it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from scipy.optimize import minimize_scalar

from tests.commands.command import Capture, run_command
from tests.runs import Run, train_here
from tests.training.test_figures import some_answers
from trainer.training.calibration import fit_temperature


@pytest.mark.parametrize("sureness", [0.2, 1.0, 6.0])
def test_the_temperature_has_the_highest_likelihood(sureness: float) -> None:
    found = some_answers(0, 500, 7)
    assert found.probabilities is not None
    logits = np.log(found.probabilities.astype(np.float64)) * sureness
    shares = np.exp(logits - np.logaddexp.reduce(logits, 1, keepdims=True)).astype(np.float32)

    def loss(temperature: float) -> float:
        scaled = logits / temperature
        logs = scaled - np.logaddexp.reduce(scaled, 1, keepdims=True)
        return -float(logs[np.arange(500), found.target].mean())

    best = minimize_scalar(loss, bounds=(0.05, 20), method="bounded", options={"xatol": 1e-9})
    assert fit_temperature(found.target, shares) == pytest.approx(best.x, rel=1e-3)


def test_answers_that_are_all_right_or_all_wrong_have_a_temperature_too() -> None:
    shares = np.tile(np.array([[0.9, 0.1]], np.float32), (5, 1))
    assert 0.05 <= fit_temperature(np.zeros(5, np.int64), shares) < 0.06
    assert 18 < fit_temperature(np.ones(5, np.int64), shares) <= 20
    assert fit_temperature(np.zeros(2, np.int64), np.full((2, 2), 0.5, np.float32)) > 0


def test_a_calibrated_run(tmp_path: Path, capsys: Capture) -> None:
    """The same answers, with probabilities that evaluate, predict and the file agree on."""
    short = ["--train.epochs", "2", "--data.train_size", "600", "--train.label_smoothing", "0.3"]
    plain, scaled = Run(tmp_path / "plain", 0), Run(tmp_path / "scaled", 0)
    assert train_here(plain.folder, *short) == 0
    assert train_here(scaled.folder, *short, "--train.calibrate", "true") == 0
    assert scaled.digest == plain.digest
    before, after = (run.json("results.json") for run in (plain, scaled))
    assert before["calibration"] is None
    found = after["calibration"]
    assert found["temperature"] < 1, "smoothed labels make a net that is not sure enough"
    for part in ("validation", "test"):
        assert found[part]["log_loss"][1] < found[part]["log_loss"][0]
    assert found["test"]["ece"] == [before["test"]["ece"], after["test"]["ece"]]
    assert after["test"]["accuracy"] == before["test"]["accuracy"]
    assert after["test"]["log_loss"] == pytest.approx(found["test"]["log_loss"][1], abs=1e-6)
    arrays = [np.load(run.folder / "predictions.npz") for run in (plain, scaled)]
    logs = np.log(arrays[0]["probabilities"].astype(np.float64)) / found["temperature"]
    expected = np.exp(logs - np.logaddexp.reduce(logs, 1, keepdims=True))
    assert np.allclose(arrays[1]["probabilities"], expected, atol=1e-5)
    code, output, errors = run_command(capsys, "evaluate", scaled.folder, "--json")
    assert code == 0, errors
    assert json.loads(output)["equals_results_json"] is True
    assert train_here(tmp_path / "none", "--data.validation_size", "0", "--train.calibrate", "true")
    assert "train.calibrate: must be false" in capsys.readouterr().err
