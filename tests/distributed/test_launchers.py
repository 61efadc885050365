"""Train with the launchers that people use."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.distributed.launch import ACCELERATE, launcher
from tests.runs import Run, train_apart, train_forked, train_here
from trainer.ranks import processes

SHORT = ["--train.epochs", "2"]


@pytest.fixture(scope="module")
def one_process(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("one_process") / "run"
    assert train_here(folder, *SHORT) == 0
    return Run(folder, 0)


@pytest.mark.parametrize("words", [ACCELERATE, launcher(2)], ids=["accelerate", "torchrun"])
def test_two_processes_do_the_run_of_one(
    words: list[str], one_process: Run, tmp_path: Path
) -> None:
    run = train_apart(tmp_path / "run", *SHORT, "--processes", "2", launcher=words)
    assert run.exit_code == 0, run.errors
    results, expected = run.json("results.json"), one_process.json("results.json")
    assert results["train"]["processes"] == 2
    assert run.digest == one_process.digest
    assert results["test"] == expected["test"]
    assert run.metrics("step") == one_process.metrics("step")
    # Only rank 0 speaks.
    assert run.output.count("test accuracy") == 1
    assert run.output.count("1,293 training") == 1


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (["--processes", "4"], "processes: this run must have 4, but 2 were started"),
        (["--train.microbatches", "5"], "with 5 start one of 1, 5 processes"),
    ],
)
def test_a_count_that_does_not_fit_is_an_error_at_once(
    change: list[str], expected: str, tmp_path: Path
) -> None:
    run = train_forked(tmp_path / "run", 2, *change)
    assert run.exit_code == 2
    assert run.errors.count(expected) == 1


def test_null_microbatches_are_pinned_at_the_first_start(tmp_path: Path) -> None:
    """A run of two processes with accumulation 3 is repeated by one process."""
    more = [*SHORT, "--train.microbatches", "null", "--train.accumulation", "3"]
    two = train_forked(tmp_path / "two", 2, *more)
    assert two.exit_code == 0, two.errors
    assert two.json("results.json")["train"]["microbatches"] == 6
    assert train_here(tmp_path / "one", config=tmp_path / "two" / "config.yaml") == 0
    assert Run(tmp_path / "one", 0).digest == two.digest


@pytest.mark.parametrize("value", ["2", "many"])
def test_a_launchers_variable_without_a_launcher(value: str, tmp_path: Path) -> None:
    run = train_apart(tmp_path / "run", WORLD_SIZE=value)
    assert run.exit_code == 2
    assert f"WORLD_SIZE: is '{value}', as if by a launcher" in run.errors
    assert not run.folder.exists()


@pytest.mark.parametrize("name", ["WORLD_SIZE", "LOCAL_WORLD_SIZE"])
def test_a_launch_of_no_process(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for variable in processes.LAUNCH_VARIABLES:
        monkeypatch.setenv(variable, "0")
    monkeypatch.setenv("WORLD_SIZE", "1")
    monkeypatch.setenv(name, "0")
    assert train_here(tmp_path / "run") == 2
    (said,) = capsys.readouterr().err.splitlines()
    assert said.startswith(f"{name}: is '0', but a launcher starts at least one process; unset it")
    assert processes.local_count() == 1, "this one, whatever a shell has left behind"
    assert not (tmp_path / "run").exists()
