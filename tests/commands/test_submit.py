"""`python -m trainer submit`: the job script, and the message where there is no Slurm."""

from __future__ import annotations

import os
import shlex
import subprocess
from pathlib import Path

import pytest

from tests.commands.command import Capture, arguments_id, run_command
from tests.conftest import REPOSITORY
from tests.runs import words

JOB = REPOSITORY / "launch" / "slurm.sbatch"


def submit(capsys: Capture, *arguments: str) -> tuple[int, str, str]:
    """Run the command; return exit code, standard output and standard error."""
    return run_command(capsys, "submit", *arguments)


def options(script: Path) -> dict[str, str]:
    """Return the options that a script gives to Slurm."""
    lines = [shlex.split(line)[1] for line in script.read_text().splitlines() if "#SBATCH" in line]
    return {name: value for name, _, value in (line[2:].partition("=") for line in lines)}


def test_the_script_asks_for_nodes_and_runs_the_job_file_with_the_runs_arguments(
    tmp_path: Path, capsys: Capture
) -> None:
    folder = tmp_path / "a run"
    of_run = words(folder, "--train.epochs", "2", "--processes", "4")
    of_job = ["--nodes", "2", "--gpus_per_node", "2", "--time", "8:00:00", "--partition", "long"]
    code, output, _ = submit(capsys, *of_job, *of_run)
    assert code == 0
    script = folder / "job.sbatch"
    assert output.startswith(script.read_text())
    assert f"sbatch '{script}'" in output
    assert options(script) == {
        "open-mode": "append",
        "requeue": "",
        "signal": "B:USR1@120",
        "job-name": "a_run",
        "nodes": "2",
        "ntasks-per-node": "2",
        "cpus-per-task": "1",
        "gpus-per-node": "2",
        "time": "8:00:00",
        "partition": "long",
        "chdir": str(Path.cwd()),
        "output": f"{folder}/slurm-%j.log",
    }
    assert shlex.split(script.read_text().splitlines()[-1])[:2] == ["exec", str(JOB)]
    assert shlex.split(script.read_text().splitlines()[-1])[2:] == of_run
    subprocess.run(["bash", "-n", script], check=True)


def test_an_array_and_a_script_of_another_name(tmp_path: Path, capsys: Capture) -> None:
    script = tmp_path / "seeds.sbatch"
    own = ["--array", "0-2,7", "--processes_per_node", "4", "--script", str(script)]
    assert submit(capsys, *own, *words(tmp_path / "runs"))[0] == 0
    found = options(script)
    assert found["array"] == "0-2,7"
    assert found["ntasks-per-node"] == "4"
    assert found["output"] == f"{tmp_path}/runs/slurm-%A_%a.log"
    assert "gpus-per-node" not in found


def test_an_array_of_the_folds_of_a_cross_validation(tmp_path: Path, capsys: Capture) -> None:
    of_run = words(tmp_path / "folds", "--processes", "2")
    code, output, _ = submit(capsys, "--folds", "4", "--processes_per_node", "2", *of_run)
    assert code == 0
    script = tmp_path / "folds" / "job.sbatch"
    assert options(script)["array"] == "1-4"
    last = shlex.split(script.read_text().splitlines()[-1])
    assert last == ["exec", str(JOB), *of_run, "--data.folds", "4"]
    report = "python -m trainer crossval --folds 4 " + shlex.join(of_run) + " --processes null"
    assert output.splitlines()[-1] == f"When all folds are finished: {report}"


@pytest.mark.parametrize(
    ("wrong", "expected"),
    [
        (["--folds", "1"], "data.folds: must be null or at least 2, found 1"),
        (["--folds", "3", "--array", "0-2"], "not allowed with argument"),
        (["--nodes", "0"], "argument --nodes: '0' is not a whole number from 1"),
        (["--processes_per_node", "two"], "argument --processes_per_node: 'two'"),
        (["--time", "soon"], "argument --time: 'soon' is not a time such as 30"),
        (["--array", "a-b"], "argument --array: 'a-b' is not a list of seeds such as 0-2"),
        (["--nodes", "3"], "with 4 start one of 1, 2, 4 processes"),
        (["--nodes", "2", "--processes", "4"], "must have 4, but the job has 2"),
        (["--train.epoch", "3"], "did you mean train.epochs?"),
        (["--script", "/dev/null/job"], "/dev/null"),
    ],
    ids=arguments_id,
)
def test_a_mistake_is_named_and_nothing_written(
    wrong: list[str], expected: str, tmp_path: Path, capsys: Capture
) -> None:
    code, _, errors = submit(capsys, *words(tmp_path / "run"), *wrong)
    assert code == 2
    assert expected in errors
    assert not list(tmp_path.rglob("job*"))


def test_without_slurm_the_script_is_written_all_the_same(
    tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    code, _, errors = submit(capsys, "--submit", *words(tmp_path / "run"))
    assert code == 2
    assert "there is no Slurm on this machine" in errors
    assert (tmp_path / "run" / "job.sbatch").is_file()


def test_the_message_of_slurm_is_passed_on(
    tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    refusing = tmp_path / "sbatch"
    refusing.write_text("#!/bin/sh\necho invalid partition specified: long >&2\nexit 1\n")
    refusing.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    code, _, errors = submit(capsys, "--submit", *words(tmp_path / "run"))
    assert code == 2
    assert "invalid partition specified: long" in errors


def test_the_workers_of_a_sweep_are_an_array_of_jobs_of_one_task(
    tmp_path: Path, capsys: Capture
) -> None:
    space, of_run = tmp_path / "space.yaml", words(tmp_path / "sweep")
    space.write_text("optimizer.lr: [0.01, 0.02]")
    search = ["--space", str(space), "--trials", "9", "--at_once", "3", "--pruning", "none"]
    own = ["--workers", "3", "--processes_per_node", "2"]
    code, _, errors = submit(capsys, *search, *own, *of_run)
    assert code == 0, errors
    script = tmp_path / "sweep" / "job.sbatch"
    found = options(script)
    assert (found["array"], found["nodes"], found["ntasks-per-node"]) == ("1-3", "1", "1")
    assert found["cpus-per-task"] == "2"
    last = shlex.split(script.read_text().splitlines()[-1])
    assert last == ["exec", str(JOB), "sweep", *search, *of_run]
    for wrong, message in (
        (["--nodes", "2"], "--nodes: must be 1 for a sweep"),
        (["--folds", "2"], "--folds: a sweep has none"),
        (["--workers", "4"], "--workers: 4 are more than --at_once, 3"),
    ):
        code, _, errors = submit(capsys, *search, *wrong, *of_run)
        assert code == 2
        assert message in errors
