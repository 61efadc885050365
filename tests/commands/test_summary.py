"""`python -m trainer summary`: mean and spread over several runs of a recipe."""

from __future__ import annotations

import json
import shutil
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.commands.command import Capture, run_command
from tests.runs import train_here

SHORT = ["--train.epochs", "1", "--data.train_size", "300"]


def summary(capsys: Capture, *words: str | Path) -> tuple[int, str, str]:
    """Run the command; return exit code, standard output and standard error."""
    return run_command(capsys, "summary", *words)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Train three seeds of a recipe."""
    folder = tmp_path_factory.mktemp("runs")
    for seed in range(3):
        assert train_here(folder / f"seed-{seed}", *SHORT, "--seed", str(seed)) == 0
    return sorted(folder.iterdir())


def change(run: Path, to: Path, name: str, old: str, new: str) -> Path:
    """Copy a run, with a word of one file changed."""
    shutil.copytree(run, to)
    text = (to / name).read_text()
    assert old in text
    (to / name).write_text(text.replace(old, new, 1))
    return to


def test_mean_and_deviation_are_those_of_the_results(runs: list[Path], capsys: Capture) -> None:
    code, output, errors = summary(capsys, *runs, "--json")
    assert (code, errors) == (0, "")
    found = json.loads(output)
    results = [json.loads((run / "results.json").read_text()) for run in runs]
    accuracies = [one["test"]["accuracy"] for one in results]
    assert found["accuracy"]["mean"] == pytest.approx(statistics.mean(accuracies))
    assert found["accuracy"]["standard_deviation"] == pytest.approx(statistics.stdev(accuracies))
    assert [one["seed"] for one in found["runs"]] == [0, 1, 2]
    chosen = [one["validation"]["chosen_accuracy"] for one in results]
    assert found["validation_accuracy"]["mean"] == pytest.approx(statistics.mean(chosen))
    assert found["lab_accuracy"] is None
    means = [
        statistics.mean(one["test"]["per_class"][place]["accuracy"] for one in results)
        for place in range(10)
    ]
    assert [row["accuracy"] for row in found["per_class"]] == pytest.approx(means)
    assert found["worst_class"] == str(means.index(min(means)))


def test_text_for_people(runs: list[Path], capsys: Capture) -> None:
    code, output, _ = summary(capsys, *runs)
    lines = output.splitlines()
    assert code == 0
    assert lines[0].split() == ["run", "seed", "test", "validation"]
    assert [line.split()[0] for line in lines[1:4]] == list(map(str, runs))
    assert lines[4].startswith("mean ")
    assert lines[5].startswith("standard deviation ")
    assert sum("<- worst" in line for line in lines) == 1
    assert len({len(line) for line in lines[:6]}) == 1


def test_one_run_has_no_deviation(runs: list[Path], capsys: Capture) -> None:
    found = json.loads(summary(capsys, runs[0], "--json")[1])
    assert found["accuracy"]["standard_deviation"] is None
    lines = summary(capsys, runs[0])[1].splitlines()
    assert lines[3].split() == ["standard", "deviation", "-", "-"]


def test_lab_accuracy_where_the_runs_have_it(
    runs: list[Path], tmp_path: Path, capsys: Capture
) -> None:
    with_lab = [
        change(
            run, tmp_path / run.name, "results.json", '"test": {', '"test": {"lab_accuracy": 0.5,'
        )
        for run in runs
    ]
    found = json.loads(summary(capsys, *with_lab, "--json")[1])
    assert found["lab_accuracy"] == {"mean": 0.5, "standard_deviation": 0.0}
    assert summary(capsys, *with_lab)[1].split()[:4] == ["run", "seed", "test", "lab"]


def test_another_recipe_is_a_warning_that_names_its_keys(
    runs: list[Path], tmp_path: Path, capsys: Capture, caplog: Any
) -> None:
    other = change(runs[1], tmp_path / "other", "config.yaml", "lr: 0.01", "lr: 0.02")
    code, output, _ = summary(capsys, runs[0], other, "--json")
    assert code == 0
    (warning,) = json.loads(output)["warnings"]
    assert warning == f"not one recipe: {runs[0]} against {other}: optimizer.lr: 0.01 against 0.02"
    assert warning in caplog.text


def test_the_same_seed_twice_is_a_warning(
    runs: list[Path], tmp_path: Path, capsys: Capture
) -> None:
    shutil.copytree(runs[0], tmp_path / "again")
    (warning,) = json.loads(summary(capsys, *runs, tmp_path / "again", "--json")[1])["warnings"]
    assert warning.startswith(f"{runs[0]} and {tmp_path / 'again'} have the same seed, 0")


def test_images_that_have_changed_between_the_runs_are_a_warning(
    runs: list[Path], tmp_path: Path, capsys: Capture
) -> None:
    """Each seed has other validation images, but the same test images."""
    tested = json.loads((runs[0] / "results.json").read_text())["data"]["test_fingerprint"]
    other = change(runs[1], tmp_path / "other", "results.json", tested, "0" * 64)
    (warning,) = json.loads(summary(capsys, runs[0], other, "--json")[1])["warnings"]
    assert warning.startswith(f"{runs[0]} and {other} were tested on different images")


@pytest.mark.parametrize("state", ["running", "stopped", "failed"])
def test_a_run_that_is_not_finished(
    runs: list[Path], tmp_path: Path, capsys: Capture, state: str
) -> None:
    other = change(runs[0], tmp_path / "other", "status.json", '"finished"', f'"{state}"')
    code, output, errors = summary(capsys, runs[1], other)
    assert (code, output) == (2, "")
    assert errors.startswith(f"{other}: its run is not finished, but {state} at step 5")


def test_a_folder_without_a_run(runs: list[Path], tmp_path: Path, capsys: Capture) -> None:
    code, _, errors = summary(capsys, runs[0], tmp_path)
    assert code == 2
    assert errors == f"{tmp_path}: not a run, there is no config.yaml in it\n"


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ('"accuracy": ', '"accuracy": "high", "was": ', "the accuracies: must be"),
        ('"per_class": ', '"per_class": 3, "was": ', "test.per_class: must be"),
        ('"name": "0"', '"name": "zero"', "has other classes than"),
        ('"test": {', '"test": {,', "damaged"),
    ],
)
def test_damaged_results_are_named(
    runs: list[Path], tmp_path: Path, capsys: Capture, old: str, new: str, expected: str
) -> None:
    other = change(runs[0], tmp_path / "other", "results.json", old, new)
    code, _, errors = summary(capsys, runs[1], other)
    assert code == 2
    assert errors.startswith(str(other))
    assert expected in errors
    assert errors.count("\n") == 1


def test_it_answers_without_torch(runs: list[Path]) -> None:
    command = [sys.executable, "-X", "importtime", "-m", "trainer", "summary", *map(str, runs)]
    finished = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "standard deviation" in finished.stdout
    imported = {line.rpartition("|")[2].strip() for line in finished.stderr.splitlines()}
    assert not {"torch", "accelerate", "numpy"} & imported
