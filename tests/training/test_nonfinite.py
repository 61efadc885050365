"""Losses that are infinite or not a number: the run ends, or goes back and leaves the step out."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.runs import Run, train_forked, train_here
from trainer.config.schema import DataConfig
from trainer.data.loading import load


def test_a_loss_that_is_not_finite_stops_the_run_and_names_the_step(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Run(tmp_path / "run", 1)
    assert train_here(run.folder, "--optimizer.name", "sgd", "--optimizer.lr", "1e30") == 1
    steps = run.metrics("step")
    first = next(record["step"] for record in steps if record["loss"] is None)
    assert f"the loss of step {first} is" in capsys.readouterr().err
    assert run.json("status.json")["state"] == "failed"
    assert run.json("status.json")["exit_code"] == 1


def test_weights_that_the_last_step_destroyed_are_no_result(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One step of one epoch: its own loss is finite, only the evaluation shows the damage."""
    more = ["--optimizer.name", "sgd", "--optimizer.lr", "1e30", "--train.epochs", "1"]
    more += ["--train.batch_size", "2000", "--data.validation_size", "0"]
    more += ["--schedule.warmup_epochs", "0"]
    run = Run(tmp_path / "run", 1)
    assert train_here(run.folder, *more) == 1
    assert "the loss of the evaluation after step 1 is nan" in capsys.readouterr().err
    assert run.json("status.json")["state"] == "failed"
    assert not (run.folder / "results.json").exists()


SPOILED = """
import torch
from models.quicknet import QuickNet

class Spoiled(QuickNet):
    def forward(self, images):
        logits = super().forward(images)
        bright = images.sum((1, 2, 3)).amax() > {limit}
        return logits * torch.nan if self.training and bright else logits
"""


@pytest.fixture(scope="module")
def spoiled(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """A recipe in which one sample, the brightest, gives a loss that is not a number."""
    config = DataConfig(name="digits")
    dataset = load(config, seed=0)
    sums = dataset.scaling.apply(dataset.train.images).sum((1, 2, 3)).sort().values
    plugin = tmp_path_factory.mktemp("plugin") / "spoiled.py"
    plugin.write_text(SPOILED.format(limit=float(sums[-2:].mean())))
    return ["--model.name", f"{plugin}:Spoiled", "--data.augment", "none", "--train.epochs", "2"]


def test_rolling_back_leaves_out_the_step_that_has_no_finite_loss(
    spoiled: list[str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    more = [*spoiled, "--train.on_nonfinite", "rollback", "--checkpoint.every_steps", "7"]
    assert train_here(tmp_path / "run", *more) == 0
    run = Run(tmp_path / "run", 0)
    skipped = run.json("results.json")["train"]["skipped_steps"]
    assert len(skipped) == 2, "the sample comes once an epoch"
    for step in skipped:
        assert f"the loss of step {step} is not finite: back to step" in caplog.text
    steps = run.metrics("step")
    assert [record["step"] for record in steps] == list(range(1, 45))
    assert [record["step"] for record in steps if record["loss"] is None] == skipped
    assert all(0 < record["train_loss"] < 3 for record in run.metrics("epoch"))
    # Where the checkpoints lie changes nothing, and neither does the process count.
    other = train_forked(tmp_path / "two", 2, *spoiled, "--train.on_nonfinite", "rollback")
    assert other.exit_code == 0, other.errors
    assert other.digest == run.digest
    assert other.metrics("step") == steps


def test_without_rolling_back_it_stops_there(
    spoiled: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train_here(tmp_path / "run", *spoiled) == 1
    assert "is nan: training cannot go on" in capsys.readouterr().err


def test_rolling_back_ends_where_it_does_not_help(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = ["--optimizer.name", "sgd", "--optimizer.lr", "1e30"]
    assert train_here(tmp_path / "run", *more, "--train.on_nonfinite", "rollback") == 1
    assert "training cannot go on" in capsys.readouterr().err
