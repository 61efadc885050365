"""TensorBoard's files, read by TensorBoard's own reader."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.runs import Run, train_here
from trainer.run.tracking.accelerate_trackers import TensorBoardTracker
from trainer.run.tracking.tracker import GuardedTracker

ON = ["--tracking.tensorboard", "true", "--train.epochs", "2"]


def points(folder: Path, name: str) -> list[tuple[int, float]]:
    """What TensorBoard shows of a figure: steps and values."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder / "tensorboard"), size_guidance={"scalars": 0})
    events.Reload()
    return [(event.step, event.value) for event in events.Scalars(name)]


def test_a_run_that_goes_on_has_every_point_once(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    more = [*ON, "--checkpoint.every_epochs", "null", "--checkpoint.every_steps", "10"]
    assert train_here(folder, *more, "--train.max_seconds", "0.001") == 75
    # As after a kill: what came after the checkpoint that it goes on from is there already.
    tracker = TensorBoardTracker(folder, "", 1)
    for step in range(2, 9):
        tracker.log({"event": "step", "epoch": 1, "step": step, "loss": 9.0, "lr": 0.1})
    tracker.finish(None)
    assert train_here(folder, *more) == 0
    run = Run(folder, 0)
    steps = run.metrics("step")
    shown = points(folder, "train/loss")
    assert [step for step, _ in shown] == [record["step"] for record in steps]
    assert [value for _, value in shown] == pytest.approx([record["loss"] for record in steps])
    per_epoch = len(steps) // 2
    accuracies = [record["validation_accuracy"] for record in run.metrics("epoch")]
    assert points(folder, "epoch/validation_accuracy") == [
        (per_epoch * epoch, pytest.approx(value)) for epoch, value in enumerate(accuracies, 1)
    ]
    accuracy = run.json("results.json")["test"]["accuracy"]
    assert points(folder, "test/accuracy") == [(len(steps), pytest.approx(accuracy))]


def test_going_back_replaces_points(tmp_path: Path) -> None:
    tracker = TensorBoardTracker(tmp_path, "seed: 0", 0)
    steps = [{"event": "step", "epoch": 1, "step": n, "loss": float(n), "lr": 0.1}
             for n in range(1, 6)]  # fmt: skip
    for record in [*steps, *(record | {"loss": -1.0} for record in steps[2:])]:
        tracker.log(record)
    tracker.finish(None)
    assert points(tmp_path, "train/loss") == [(1, 1.0), (2, 2.0), (3, -1.0), (4, -1.0), (5, -1.0)]


def test_a_missing_package_is_one_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("accelerate.tracking.get_available_trackers", list)
    tracker = GuardedTracker("TensorBoard", lambda: TensorBoardTracker(tmp_path, "", 0))
    tracker.log([{"event": "step", "epoch": 1, "step": 1, "loss": 1.0, "lr": 0.1}])
    tracker.finish(None, stopped=False)
    (record,) = caplog.records
    assert "TensorBoard is off" in record.message
    assert "pip install 'lockstep-trainer[tensorboard]'" in record.message


def test_a_folder_that_cannot_be_written_is_one_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "tensorboard").write_text("in the way")
    tracker = GuardedTracker("TensorBoard", lambda: TensorBoardTracker(tmp_path, "", 0))
    tracker.finish(None, stopped=False)
    assert len(caplog.records) == 1
