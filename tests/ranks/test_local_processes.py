"""A command starts its own processes: how many, how they end, and what is seen of them."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.faults.running import LONG, start
from tests.runs import Run, train_apart, train_forked, train_here, words
from trainer.base.errors import UserError
from trainer.commands import options
from trainer.config import command_line, stored_config
from trainer.config.schema import RunConfig, replace
from trainer.ranks import exit_codes, processes
from trainer.ranks.local_processes import common_exit_code
from trainer.run.run_folder import RunFolder

SHORT = ["--train.epochs", "2", "--data.train_size", "300"]


@pytest.mark.parametrize(
    ("machine", "count"),
    [
        ({"microbatches": 4, "cores": 1}, 1),
        ({"microbatches": 4, "cores": 2}, 2),
        ({"microbatches": 4, "cores": 3}, 2),
        ({"microbatches": 4, "cores": 64}, 4),
        ({"microbatches": 24, "cores": 16}, 12),
        ({"microbatches": 7, "cores": 6}, 1),
        ({"microbatches": 4, "cores": 8, "threads": 4}, 2),
        ({"microbatches": 4, "cores": 2, "threads": 4}, 1),
        ({"microbatches": 4, "cores": 1, "gpus": 8}, 4),
        ({"microbatches": 8, "cores": 64, "gpus": 3, "threads": 64}, 2),
        ({"microbatches": 4, "cores": 64, "gpus": 1}, 1),
        ({"microbatches": None, "cores": 64, "gpus": 8}, 1),
        ({"microbatches": 4, "cores": 8, "asked": 2}, 2),
        ({"microbatches": None, "cores": 1, "asked": 3}, 3),
        ({"microbatches": 4, "cores": 8, "limit": 3}, 2),
        ({"microbatches": 4, "cores": 2, "limit": 64}, 2),
        ({"microbatches": 4, "cores": 2, "limit": 1, "asked": 4}, 4),
    ],
)
def test_the_number_of_processes(machine: dict[str, Any], count: int) -> None:
    machine = {"asked": None, "threads": 1, "gpus": 0} | machine
    assert processes.choose_count(**machine) == count


def test_the_cores_are_those_that_the_process_may_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(processes.LIMIT_VARIABLE)
    config = replace(RunConfig(), {"train.microbatches": 4})
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(4))
    assert processes.count_to_start(config, gpus=0) == 4
    monkeypatch.setattr(processes, "cpu_quota", lambda: 2.5)
    assert processes.count_to_start(config, gpus=0) == 2
    monkeypatch.setenv("WORLD_SIZE", "4")  # a launcher has started it
    assert processes.count_to_start(config, gpus=0) == 1


def test_more_processes_than_gpus_are_refused() -> None:
    with pytest.raises(UserError, match="processes: 4, but this machine has 3 GPUs"):
        processes.count_to_start(replace(RunConfig(), {"processes": 4}), gpus=3)


@pytest.mark.parametrize("value", ["", "0", "two"])
def test_a_limit_must_be_a_number(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv(processes.LIMIT_VARIABLE, value)
    with pytest.raises(UserError, match=f"LOCKSTEP_PROCESSES: must be .* found '{value}'"):
        processes.count_to_start(replace(RunConfig(), {"train.microbatches": 4}), gpus=0)


def test_an_older_run_goes_on_with_its_threads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(processes.LIMIT_VARIABLE)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(4))
    RunFolder(tmp_path).write_config(command_line.parse(words(tmp_path, "--threads", "2")))
    known = options.complete(command_line.parse(words(tmp_path, "--threads", "null")))
    assert (known.threads, processes.count_to_start(known, gpus=0)) == (2, 2)
    with pytest.raises(UserError, match="threads: 1 against 2"):
        options.complete(command_line.parse(words(tmp_path)))


def test_threads_wait_without_spinning_unless_the_user_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = []
    for own in (None, "active"):
        monkeypatch.delenv("OMP_WAIT_POLICY")
        if own:
            monkeypatch.setenv("OMP_WAIT_POLICY", own)
        with pytest.raises(SystemExit), exit_codes.program():
            found.append(os.environ["OMP_WAIT_POLICY"])
    assert found == ["passive", "active"]


@pytest.mark.parametrize(
    ("codes", "code"),
    [
        ([0, 0], exit_codes.FINISHED),
        ([75, 75], exit_codes.STOPPED_ON_REQUEST),
        ([2, 2], exit_codes.USER_CAN_FIX),
        ([1, 2], exit_codes.USER_CAN_FIX),  # of which the first only lost the second
        ([3, 0], exit_codes.DIFFERENT),  # rank 0 speaks for all
        ([1, -signal.SIGKILL], exit_codes.FAILED),
        ([75, -signal.SIGSEGV], exit_codes.FAILED),
    ],
)
def test_one_exit_code_of_all(codes: list[int], code: int) -> None:
    assert common_exit_code(codes) == code


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("one") / "run"
    return Run(folder, train_here(folder, *SHORT, "--threads", "null"))


def test_two_and_four_processes_give_the_bits_of_one(one: Run, tmp_path: Path) -> None:
    assert stored_config.read_folder(one.folder).threads == 1  # on any machine
    for count in ("2", "4"):
        words = (*SHORT, "--processes", count)
        run = (
            train_forked(tmp_path / count, 1, *words)
            if count == "2"
            else train_apart(tmp_path / count, *words)
        )
        assert run.exit_code == 0, run.errors
        assert run.digest == one.digest
        assert f"processes     {count}, of 1 thread each" in run.output
        # One screen, and nothing on it that torch or Accelerate have to say to launchers.
        assert run.output.count("1/2 ") == 1
        few = "threads: 4 processes of 1 thread share 2 cores, which is slow\n"
        assert run.errors == (few if int(count) > processes.usable_cores() else "")


def test_a_mistake_is_said_once_before_or_after_the_start(tmp_path: Path) -> None:
    for more, message in (
        (["--processes", "3"], "train.microbatches: 4 do not divide by 3 processes"),
        (["--processes", "2", "--data.train_size", "5000"], "data.train_size: "),
    ):
        run = train_apart(tmp_path / "run", *SHORT, *more)
        assert run.exit_code == exit_codes.USER_CAN_FIX
        assert len(run.errors.splitlines()) == 1
        assert run.errors.startswith(message)


def test_a_request_to_stop_reaches_all(tmp_path: Path) -> None:
    folder, long = tmp_path / "run", [*LONG, "--processes", "2"]
    process = start(folder, *long)
    os.kill(process.pid, signal.SIGTERM)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == exit_codes.STOPPED_ON_REQUEST, output
    assert output.count("the same command") == 1, output
    process = start(folder, *long)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal's Ctrl-C
    output, _ = process.communicate(timeout=60)
    assert process.returncode == exit_codes.STOPPED_ON_REQUEST, output


def test_a_killed_rank_is_named_and_ends_the_others(tmp_path: Path) -> None:
    process = start(tmp_path / "run", *LONG, "--processes", "2")
    ranks = psutil.Process(process.pid).children()
    ranks[1].kill()  # in the order of their start
    output, _ = process.communicate(timeout=60)
    assert process.returncode == exit_codes.FAILED
    assert output.count("rank 1 on ") == 1, output
    assert "was killed by SIGKILL" in output
    assert not any(rank.is_running() for rank in ranks)


def test_no_rank_outlives_the_command(tmp_path: Path) -> None:
    process = start(tmp_path / "run", *LONG, "--processes", "2")
    ranks = psutil.Process(process.pid).children()
    process.kill()
    process.wait()
    assert psutil.wait_procs(ranks, timeout=30)[1] == []
