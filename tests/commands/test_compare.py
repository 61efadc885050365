"""`python -m trainer compare`: equal runs, and where different ones part."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from tests.runs import train_here
from trainer import __main__

SHORT = ["--train.epochs", "2", "--data.train_size", "300"]


def compare(capsys: pytest.CaptureFixture[str], *words: str | Path) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of the command."""
    sys.argv = ["trainer", "compare", *map(str, words)]
    with pytest.raises(SystemExit) as ended:
        __main__.main()
    output = capsys.readouterr()
    assert isinstance(ended.value.code, int)
    return ended.value.code, output.out, output.err


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "run"
    assert train_here(folder, *SHORT) == 0
    return folder


def test_the_same_run_twice_is_bit_identical(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train_here(tmp_path / "again", *SHORT) == 0
    capsys.readouterr()
    code, output, _ = compare(capsys, run, tmp_path / "again")
    assert code == 0
    assert output.startswith("bit-identical: 10 steps, weights ")
    assert json.loads((run / "results.json").read_text())["final_weights_sha256"] in output


def test_the_first_step_that_differs_is_named_and_the_tensors(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A weight decay acts from step 1 on, so the loss of step 2 is the first that shows it."""
    assert train_here(tmp_path / "other", *SHORT, "--optimizer.weight_decay", "0.5") == 0
    capsys.readouterr()
    _, output, _ = compare(capsys, run, tmp_path / "other")
    assert output.startswith("different: step 2 (epoch 1): loss ")
    assert ".weight: largest difference " in output
    _, output, _ = compare(capsys, run, tmp_path / "other", "--json")
    found = json.loads(output)
    assert found["identical"] is False
    differences = [tensor["largest_difference"] for tensor in found["tensors"]]
    assert differences == sorted(differences, reverse=True)
    assert min(differences) > 0


def test_what_rounds_differently_is_said(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train_here(tmp_path / "other", *SHORT, "--threads", "2") == 0
    capsys.readouterr()
    _, output, _ = compare(capsys, run, tmp_path / "other")
    assert "equal at best to rounding, not in bits: threads 1 against 2" in output


def test_a_run_that_ended_earlier(run: Path, tmp_path: Path) -> None:
    from trainer.commands.compare import compare as find

    part = tmp_path / "part"
    part.mkdir()
    lines = (run / "metrics.jsonl").read_text().splitlines(keepends=True)
    (part / "metrics.jsonl").write_text("".join(lines[:4]))
    assert find(run, part)["first_difference"] == "one run ends before step 5 (epoch 1)"


def test_a_folder_without_a_run(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, errors = compare(capsys, run, tmp_path)
    assert code == 2
    assert "holds no run" in errors or "no run" in errors
    assert "metrics.jsonl" in errors
