"""`python -m trainer profile`: where the time of a run's steps goes; the run stays as it is."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from tests.commands.command import Capture, arguments_id, run_command
from tests.distributed.launch import run_forked
from tests.runs import Run, contents, train_here, words
from trainer.base import profiler_ranges

FEW = ["--steps", "2", "--warmup", "1"]
SHORT = ["--train.epochs", "1", "--data.train_size", "300"]
PHASES = [
    "data", "augmentation", "forward", "backward", "reduction", "optimiser", "validation",
    "the rest",
]  # fmt: skip


def profile(folder: Path, capsys: Capture, *more: str) -> tuple[int, str, str]:
    """Profile a short run; return exit code, standard output and standard error."""
    trace = ["--trace", str(folder / "trace.json")]
    return run_command(capsys, "profile", *words(folder / "run", *SHORT), *FEW, *trace, *more)


def test_phases_and_operators_add_up(tmp_path: Path, capsys: Capture) -> None:
    code, output, errors = profile(tmp_path, capsys, "--json", "--memory")
    assert code == 0, errors
    found = json.loads(output)
    assert (found["steps"], found["processes"], found["batch_size"]) == (2, 1, 60)
    assert 50e6 < found["peak_memory_bytes"] < 50e9
    assert found["peak_memory_of"] == "the process"
    assert [row["name"] for row in found["phases"]] == PHASES
    assert sum(row["share"] for row in found["phases"]) == pytest.approx(1)
    times = {row["name"]: row["step_ms"] for row in found["phases"]}
    assert sum(times.values()) == pytest.approx(found["profiled_step_ms"])
    # 270 images make five steps, of which the profile has the fourth and fifth.
    assert min(times[name] for name in PHASES if name != "validation") > 0
    assert times["validation"] == 0
    operators = {row["name"]: row for row in found["operators"]}
    # Two steps of four micro-batches through three convolutions.
    assert operators["aten::convolution_backward"]["calls"] == 24
    assert not set(PHASES) & set(operators)
    assert not [name for name in operators if name.startswith("Optimizer")]
    own = [row["self_ms"] for row in found["operators"]]
    assert own == sorted(own, reverse=True)
    assert sum(row["share"] for row in found["operators"]) < 1
    assert any(row["allocated_bytes"] > 0 for row in found["operators"])


def test_the_trace_has_the_phases(tmp_path: Path, capsys: Capture) -> None:
    trace = tmp_path / "packed.json.gz"
    code, output, errors = profile(tmp_path, capsys, "--trace", str(trace), "--rows", "3")
    assert code == 0, errors
    events = json.loads(gzip.decompress(trace.read_bytes()))["traceEvents"]
    counts = {name: sum(event.get("name") == name for event in events) for name in PHASES}
    assert counts["optimiser"] == counts["data"] == 2
    assert counts["forward"] == counts["backward"] == 8
    assert str(trace) in output.splitlines()[-1]
    lines = output.splitlines()
    head = next(place for place, line in enumerate(lines) if line.startswith("operator"))
    assert lines[head + 4] == ""
    assert list(tmp_path.iterdir()) == [trace]


def test_a_run_that_is_there_stays_as_it_is(tmp_path: Path, capsys: Capture) -> None:
    assert train_here(tmp_path / "run", *SHORT) == 0
    before = contents(tmp_path / "run")
    # With a checkpoint to go back to, and at the end of an epoch.
    more = ["--train.on_nonfinite", "rollback", "--train.epochs", "2", "--steps", "3"]
    code, output, errors = profile(tmp_path, capsys, *more, "--json")
    assert code == 0, errors
    assert contents(tmp_path / "run") == before
    phases = {row["name"]: row["step_ms"] for row in json.loads(output)["phases"]}
    assert phases["validation"] > 0  # after step 5; the profile has the steps 5 to 7


def test_ranges_change_no_bit(tmp_path: Path) -> None:
    assert train_here(tmp_path / "plain", *SHORT) == 0
    with profiler_ranges.record(lambda: None):
        assert train_here(tmp_path / "recorded", *SHORT) == 0
    assert Run(tmp_path / "recorded", 0).digest == Run(tmp_path / "plain", 0).digest


def test_ranges_are_nothing_while_nobody_records() -> None:
    with profiler_ranges.record(lambda: None):
        assert profiler_ranges.label("a") is not profiler_ranges.label("b")
    assert profiler_ranges.label("a") is profiler_ranges.label("b")


def test_rank_0_reports_for_two_processes(tmp_path: Path) -> None:
    arguments: list[Any] = [*words(tmp_path / "run", *SHORT, "--processes", "2"), *FEW]
    trace = ["--trace", str(tmp_path / "trace.json")]
    finished = run_forked(2, tmp_path, "-m", "trainer", "profile", *arguments, *trace, "--json")
    assert finished.returncode == 0, finished.stderr
    found = json.loads(finished.stdout)
    assert found["processes"] == 2
    assert {row["name"] for row in found["phases"]} == set(PHASES)
    calls = {row["name"]: row["calls"] for row in found["operators"]}
    assert calls["aten::convolution_backward"] == 12  # two of the four micro-batches are its own
    assert {path.name for path in tmp_path.iterdir()} == {"trace.json", "ranks.out", "ranks.err"}


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        (["--steps", "3"], "--steps, --warmup: 1 + 2 x 3 are 7 steps, but the run has 5"),
        (["--steps", "0"], "'0' is not a whole number from 1"),
        (["--trace", "nowhere/trace.json"], "--trace: nowhere is not a folder that can be written"),
        (["--trace", "configs"], "--trace: configs is a folder"),
        (["--model.name", "lenet7"], "model.name, model.args: no model is called 'lenet7'"),
        (["--train.epochz", "1"], "did you mean train.epochs?"),
        (["--processes", "3"], "train.microbatches: 4 do not divide by 3 processes"),
    ],
    ids=arguments_id,
)
def test_a_mistake_is_named_and_nothing_written(
    more: list[str], expected: str, tmp_path: Path, capsys: Capture
) -> None:
    code, output, errors = profile(tmp_path, capsys, *more)
    assert (code, output) == (2, "")
    assert expected in errors
    assert list(tmp_path.iterdir()) == []
