"""Runs that go on: with more epochs where that is the same run, and never as another run."""

from __future__ import annotations

from pathlib import Path

import pytest
from safetensors.numpy import load_file, save_file

from tests.checkpoints import forge_state
from tests.runs import Run, contents, train_here

SMALL = ["--data.train_size", "300"]
CONSTANT = ["--schedule.name", "constant"]
PIECEWISE = ["--schedule.name", "piecewise", "--schedule.milestones", "[0.75]"]


def test_what_a_killed_process_was_writing_is_removed(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / ".model.4711.safetensors").touch()
    (run / ".notes.txt").touch()
    assert train_here(run, *SMALL, "--train.epochs", "1") == 0
    hidden = {path.name for path in run.iterdir() if path.name.startswith(".")}
    assert hidden == {".lock", ".notes.txt"}


@pytest.mark.parametrize("schedule", [CONSTANT, PIECEWISE], ids=" ".join)
def test_a_finished_run_can_be_given_more_epochs(schedule: list[str], tmp_path: Path) -> None:
    assert train_here(tmp_path / "long", *SMALL, *schedule, "--train.epochs", "3") == 0
    for epochs in ("1", "3"):
        assert train_here(tmp_path / "run", *SMALL, *schedule, "--train.epochs", epochs) == 0
    long, run = Run(tmp_path / "long", 0), Run(tmp_path / "run", 0)
    assert run.digest == long.digest
    assert run.metrics("step") == long.metrics("step")
    assert run.json("results.json")["test"] == long.json("results.json")["test"]


OLD_NAMES = {"exp_avg": "mean", "exp_avg_sq": "square"}


def write_in_format_3(checkpoint: Path) -> None:
    """Write a checkpoint as the version did that had an Adam of its own."""
    path = checkpoint / "optimizer.safetensors"
    tensors = load_file(path)
    muon = {key.split(".")[0] for key in tensors if key.endswith(".momentum")}
    old = {}
    for key, tensor in tensors.items():
        index, name = key.split(".")
        if name != "step" or index not in muon:
            old[f"{index}.{OLD_NAMES.get(name, name)}"] = tensor
    save_file(old, path)
    forge_state(checkpoint, lambda state: state.update(format_version=3))


@pytest.mark.parametrize("optimizer", ["adamw", "muon", "sgd"])
def test_a_run_of_the_format_before_goes_on(optimizer: str, tmp_path: Path) -> None:
    more = [*SMALL, *CONSTANT, "--optimizer.name", optimizer, "--train.epochs"]
    assert train_here(tmp_path / "long", *more, "3") == 0
    assert train_here(tmp_path / "run", *more, "1") == 0
    for checkpoint in (tmp_path / "run" / "checkpoints").iterdir():
        write_in_format_3(checkpoint)
    assert train_here(tmp_path / "run", *more, "3") == 0
    assert Run(tmp_path / "run", 0).digest == Run(tmp_path / "long", 0).digest


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Runs of two epochs, by their schedule."""
    folder = tmp_path_factory.mktemp("runs")
    for name in ("constant", "cosine"):
        more = ["--schedule.name", name, "--train.epochs", "2"]
        assert train_here(folder / name, *SMALL, *more) == 0
    return {name: folder / name for name in ("constant", "cosine")}


@pytest.mark.parametrize(
    ("schedule", "more", "expected"),
    [
        ("constant", [*CONSTANT, "--train.epochs", "1"], "train.epochs: 1 against 2"),
        ("cosine", ["--train.epochs", "3"], "a cosine schedule spreads over all epochs"),
        (
            "constant",
            [*PIECEWISE, "--train.epochs", "3"],
            "schedule.milestones: [0.75] against None",
        ),
    ],
)
def test_another_number_of_epochs_is_refused_where_it_would_be_another_run(
    schedule: str,
    more: list[str],
    expected: str,
    finished: dict[str, Path],
    capsys: pytest.CaptureFixture[str],
) -> None:
    before = contents(finished[schedule])
    assert train_here(finished[schedule], *SMALL, *more) == 2
    assert expected in capsys.readouterr().err
    assert contents(finished[schedule]) == before


def test_a_plug_in_that_was_changed_is_another_model(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plugin = tmp_path / "mine.py"
    plugin.write_text("from models.quicknet import QuickNet as Net\n")
    more = [*SMALL, *CONSTANT, "--model.name", f"{plugin}:Net", "--train.epochs"]
    assert train_here(tmp_path / "run", *more, "1") == 0
    plugin.write_text("from models.quicknet import QuickNet as Net  # changed\n")
    assert train_here(tmp_path / "run", *more, "2") == 2
    assert "model.name: the code differs" in capsys.readouterr().err
    assert Run(tmp_path / "run", 2).json("status.json")["state"] == "finished", "as it was"
