"""Trackers of Accelerate's: which classes they are, what they are given, and which are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import pytest
from accelerate.tracking import LOGGER_TYPE_TO_CLASS, GeneralTracker

from tests.runs import train_here
from trainer.config.schema import TrackerName
from trainer.run.tracking import accelerate_trackers

OTHERS = [name for name in get_args(TrackerName) if name != "mlflow"]


@pytest.mark.parametrize("name", OTHERS)
def test_each_name_is_a_class_of_accelerates(
    name: TrackerName, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[Any] = []
    kind = LOGGER_TYPE_TO_CLASS[name]
    for method in ("start", "store_init_configuration", "log", "finish"):

        def note(self: GeneralTracker, *values: Any, method: str = method, **keys: Any) -> None:
            assert type(self) is kind
            calls.append((method, *values, *keys.values()))

        monkeypatch.setattr(kind, method, note)
    config = {"seed": 7}
    for step in (0, 4):
        tracker = accelerate_trackers.start(name, config, None, tmp_path, "abc123", step)
        tracker.log({"event": "step", "epoch": 1, "step": step + 1, "loss": 2.0, "lr": 0.1})
        tracker.log({"event": "epoch", "epoch": 1, "train_loss": 1.5, "validation_loss": None})
        tracker.finish(None)
    first = [
        ("log", {"train/loss": 2.0, "train/lr": 0.1}, 1),
        ("log", {"epoch/train_loss": 1.5}, 1),
        ("finish",),
    ]
    assert calls[:5] == [("start",), ("store_init_configuration", config), *first]
    assert calls[5:7] == [("start",), ("log", {"train/loss": 2.0, "train/lr": 0.1}, 5)]


@pytest.mark.parametrize(
    ("trackers", "expected"),
    [
        ('["neptune"]', ["tracking.trackers", "neptune", "mlflow"]),
        ('["aim"]', ["tracking.trackers: aim: its package is not installed", "pip install aim"]),
    ],
)
def test_a_wrong_name_or_a_missing_package_is_refused(
    trackers: str,
    expected: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("accelerate.tracking.get_available_trackers", list)
    assert train_here(tmp_path / "run", "--tracking.trackers", trackers) == 2
    message = capsys.readouterr().err
    assert all(part in message for part in expected), message
    assert not (tmp_path / "run" / "config.yaml").exists()
