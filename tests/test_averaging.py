"""The moving average of the weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from tests.runs import Run, train_here
from trainer.averaging import WeightAverage

SHORT = ["--train.epochs", "2", "--data.train_size", "300", "--checkpoint.keep", "9"]


def test_it_follows_its_definition() -> None:
    model = nn.BatchNorm1d(1)
    average = WeightAverage(model, decay=0.5)
    expected = 1.0
    for step, value in enumerate([3.0, -1.0, 5.0, 5.0, 7.0, 0.0, 1.0, 2.0, 3.0, 4.0], start=1):
        nn.init.constant_(model.weight, value)
        model.num_batches_tracked.fill_(step)
        average.update(step)
        decay = min(0.5, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * value
        assert average.tensors["weight"].item() == pytest.approx(expected, rel=1e-6)
        assert average.tensors["num_batches_tracked"] == step


def test_the_model_gets_its_own_weights_back() -> None:
    model = nn.Linear(2, 2)
    average = WeightAverage(model, decay=0.5)
    first = model.weight.detach().clone()
    nn.init.ones_(model.weight)
    with pytest.raises(RuntimeError, match="evaluation"), average.in_place():
        assert torch.equal(model.weight, first)
        raise RuntimeError("evaluation")
    assert torch.equal(model.weight, torch.ones(2, 2))


@pytest.fixture(scope="module")
def averaged(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("averaged") / "run"
    assert train_here(folder, *SHORT, "--train.ema_decay", "0.5") == 0
    return Run(folder, 0)


@pytest.mark.parametrize("validation", ["null", "0"])
def test_the_averaged_weights_are_chosen(validation: str, tmp_path: Path) -> None:
    more = ["--train.ema_decay", "0.5", "--data.validation_size", validation]
    folder = tmp_path / "run"
    assert train_here(folder, *SHORT, *more) == 0
    averages = [load_file(path) for path in folder.glob("checkpoints/*/ema.safetensors")]
    chosen = load_file(folder / "model.safetensors")
    assert any(all(torch.equal(chosen[name], one[name]) for name in chosen) for one in averages)
    results = Run(folder, 0).json("results.json")
    assert results["weights_sha256"] != results["final_weights_sha256"]


def test_training_goes_on_from_its_own_weights(averaged: Run, tmp_path: Path) -> None:
    """The average looks on: losses and last weights are those of a run without it."""
    assert train_here(tmp_path / "plain", *SHORT) == 0
    plain = Run(tmp_path / "plain", 0)
    assert plain.digest == averaged.digest
    assert plain.metrics("step") == averaged.metrics("step")


def test_a_resume_goes_on_with_the_average(averaged: Run, tmp_path: Path) -> None:
    first = min(averaged.folder.glob("checkpoints/step-*"))
    more = ["--train.ema_decay", "0.5", "--resume", str(first)]
    assert train_here(tmp_path / "run", *SHORT, *more) == 0
    resumed = Run(tmp_path / "run", 0).json("results.json")
    assert resumed["weights_sha256"] == averaged.json("results.json")["weights_sha256"]
