"""Run launch/slurm.sbatch on a real Slurm: two nodes, requests to stop, a dead rank, arrays."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from tests.cluster.slurm import ENDED, Slurm, wait_until
from tests.conftest import REPOSITORY
from tests.distributed.launch import run_forked
from tests.faults.running import steps_logged
from tests.runs import Run, check_same, train_here, words
from trainer.config import stored_config

JOB = REPOSITORY / "launch" / "slurm.sbatch"
TWO_NODES = ["--nodes=2", "--ntasks-per-node=1"]

# The first attempt of a job with SLOW, the seconds of a step, cannot end before it is asked to.
SLOW = ["--export=ALL,SLOW=0.4"]
SLOWER = ["--export=ALL,SLOW=3"]
SLOW_AT_FIRST = """
import os, time
from models.quicknet import QuickNet

class SlowAtFirst(QuickNet):
    def forward(self, images):
        first = os.environ.get("SLURM_RESTART_COUNT", "0") == "0"
        if self.training and first and "SLOW" in os.environ:
            time.sleep(float(os.environ["SLOW"]))
        return super().forward(images)
"""


SMALL = ["--data.train_size", "600"]
"""five epochs of nine steps"""


class Job:
    """Trains the digits in `folder`, on two nodes; without a report."""

    def __init__(self, slurm: Slurm, folder: Path, options: list[str], *more: str) -> None:
        self.slurm = slurm
        self.folder = folder
        self.log = folder.parent / "job.log"
        options = [*options, f"--output={self.log}", f"--chdir={REPOSITORY}"]
        more = (*SMALL, *more)
        self.number = slurm.submit(*options, JOB, *words(folder, *more))
        wait_until(lambda: self.state() != "PENDING", 60)

    def end(self, state: str = "COMPLETED") -> Run:
        """Wait until it has ended in this state."""
        ended = self.slurm.wait(self.number)
        assert ended["JobState"] == state, self.log.read_text()
        code = int(ended["ExitCode"].split(":")[0])
        return Run(self.folder, code, self.log.read_text(), self.log.read_text())

    def state(self) -> str:
        return self.slurm.job(self.number)["JobState"]

    def train_some_steps(self) -> None:
        wait_until(lambda: steps_logged(self.folder) > 5 or self.state() in ENDED, 200)
        assert self.state() == "RUNNING", self.log.read_text()

    def ranks(self) -> dict[int, psutil.Process]:
        """Return its processes that train."""
        found = {}
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error, KeyError):
                variables = process.environ()
                if variables["SLURM_JOB_ID"] == str(self.number):
                    found[int(variables["RANK"])] = process
        return found


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    plugin = tmp_path_factory.mktemp("plugin") / "slow.py"
    plugin.write_text(SLOW_AT_FIRST)
    return ["--model.name", f"{plugin}:SlowAtFirst"]


@pytest.fixture(scope="module")
def undisturbed(model: list[str], tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("undisturbed") / "run"
    assert train_here(folder, *SMALL, *model) == 0
    return Run(folder, 0)


@pytest.fixture(scope="module")
def limited(slurm: Slurm, model: list[str], tmp_path_factory: pytest.TempPathFactory) -> Job:
    """A job that gets USR1 before its time limit, of a minute.

    Slurm looks at limits twice a minute, so that it is started well before its end is waited for.
    """
    options = [*TWO_NODES, *SLOWER, "--time=1", "--signal=B:USR1@30"]
    job = Job(slurm, tmp_path_factory.mktemp("limited") / "run", options, *model)
    assert slurm.job(job.number)["TimeLimit"] == "00:01:00"
    return job


def test_two_nodes_do_the_run_of_one_process(
    slurm: Slurm, undisturbed: Run, model: list[str], tmp_path: Path
) -> None:
    run = Job(slurm, tmp_path / "run", TWO_NODES, "--processes", "2", *model).end()
    check_same(run, undisturbed)
    assert run.output.count("test accuracy") == 1, "only rank 0 prints"


def ask_the_processes(job: Job) -> None:
    job.train_some_steps()
    job.slurm.call("scancel", "--signal=USR1", str(job.number))


def ask_before_they_listen(job: Job) -> None:
    wait_until(lambda: len(job.ranks()) == 2, 200)
    job.slurm.call("scancel", "--batch", "--signal=USR1", str(job.number))


def preempt(job: Job) -> None:
    job.train_some_steps()
    options = ["--partition=urgent", "--nodes=2", "--exclusive", "--output=/dev/null"]
    job.slurm.submit(*options, "--wrap=sleep 1")


def check_requeued(job: Job, undisturbed: Run, most: int = 1) -> None:
    """Check that it saved, went back into the queue up to `most` times, and did the whole run."""
    run = job.end()
    restarts = int(job.slurm.job(job.number)["Restarts"])
    assert 1 <= restarts <= most
    assert run.output.count("everything is saved") == restarts, run.output
    assert "going on after step" in run.output
    check_same(run, undisturbed)


@pytest.mark.parametrize("ask", [ask_the_processes, ask_before_they_listen, preempt])
def test_a_job_that_is_asked_to_stop_saves_and_is_requeued_until_it_is_finished(
    ask: Callable[[Job], None], slurm: Slurm, model: list[str], undisturbed: Run, tmp_path: Path
) -> None:
    job = Job(slurm, tmp_path / "run", [*TWO_NODES, *SLOW], *model)
    ask(job)
    check_requeued(job, undisturbed)


@pytest.mark.usefixtures("limited")  # it comes to its limit during the tests from here on
def test_a_cancelled_job_saves_and_is_not_requeued(
    slurm: Slurm, model: list[str], tmp_path: Path
) -> None:
    job = Job(slurm, tmp_path / "run", [*TWO_NODES, *SLOW], *model)
    job.train_some_steps()
    slurm.call("scancel", str(job.number))
    run = job.end("CANCELLED")
    wait_until(lambda: run.json("status.json")["state"] == "stopped", 10)
    assert slurm.job(job.number)["Restarts"] == "0"


def test_a_rank_that_is_killed_is_named_and_the_job_goes_on_when_submitted_again(
    slurm: Slurm, model: list[str], undisturbed: Run, tmp_path: Path
) -> None:
    more = [*model, "--checkpoint.every_steps", "1", "--timeout_seconds", "60"]
    job = Job(slurm, tmp_path / "run", [*TWO_NODES, *SLOW], *more)
    job.train_some_steps()
    job.ranks()[1].kill()
    killed_s = time.monotonic()
    killed = job.end("FAILED")
    assert time.monotonic() - killed_s < 60
    died = f"rank 1 on {platform.node()} died"
    assert f"rank 0 on {platform.node()}: {died}" in killed.output
    assert killed.output.splitlines()[-1].startswith(died)
    assert killed.json("status.json")["state"] == "failed"
    finished = Job(slurm, tmp_path / "run", TWO_NODES, *more).end()
    assert "going on after step" in finished.output
    check_same(finished, undisturbed)


def do_without_slurm(folder: Path, *words: str | Path) -> str:
    """Run a command in one process; return its output."""
    done = run_forked(1, folder, "-m", "trainer", *map(str, words))
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_an_array_trains_each_seed_in_its_own_folder(slurm: Slurm, tmp_path: Path) -> None:
    """By `submit`, each on the one CPU that Slurm gives a task."""
    runs = tmp_path / "all runs"
    run_words = words(runs, "--train.epochs", "1", "--seed", "7", "--threads", "null")
    submit = [sys.executable, "-m", "trainer", "submit", "--array", "0-1", "--submit"]
    number = slurm.call(*submit, *run_words).split()[-1]
    digests = set()
    for seed in range(2):
        ended = slurm.wait(f"{number}_{seed}")
        assert ended["JobState"] == "COMPLETED", (runs / f"slurm-{number}_{seed}.log").read_text()
        assert ended["JobName"] == "all_runs"
        run = Run(runs / f"seed-{seed}", 0)
        assert run.json("results.json")["seed"] == seed
        assert stored_config.read(run.folder / "config.yaml").threads == 1
        digests.add(run.digest)
    assert len(digests) == 2
    folders = [runs / f"seed-{seed}" for seed in range(2)]
    found = json.loads(do_without_slurm(tmp_path, "summary", "--json", *folders))
    accuracies = [Run(one, 0).json("results.json")["test"]["accuracy"] for one in folders]
    assert found["accuracy"]["mean"] == pytest.approx(statistics.mean(accuracies))
    assert found["warnings"] == []


def test_an_array_trains_the_folds_of_a_cross_validation(slurm: Slurm, tmp_path: Path) -> None:
    """By `submit`; the last call only reports, and the result is that of one process."""
    command = ["crossval", "--folds", "2"]
    short = ["--train.epochs", "1", "--data.train_size", "300"]
    do_without_slurm(tmp_path, *command, *words(tmp_path / "one", *short))
    single = Run(tmp_path / "one", 0).json("crossval.json")
    run_words = words(tmp_path / "array", *short)
    submit = [sys.executable, "-m", "trainer", "submit", "--folds", "2", "--submit"]
    lines = slurm.call(*submit, *run_words).splitlines()
    number = next(line.split()[-1] for line in lines if line.startswith("Submitted"))
    for fold in (1, 2):
        ended = slurm.wait(f"{number}_{fold}")
        log = tmp_path / "array" / f"slurm-{number}_{fold}.log"
        assert ended["JobState"] == "COMPLETED", log.read_text()
    do_without_slurm(tmp_path, *command, *run_words)
    found = Run(tmp_path / "array", 0).json("crossval.json")
    assert [one["final_weights_sha256"] for one in found["runs"]] == [
        one["final_weights_sha256"] for one in single["runs"]
    ]


def test_an_array_works_on_a_sweep(slurm: Slurm, tmp_path: Path) -> None:
    """By `submit`; the workers share it, and the trials are those of one command."""
    (tmp_path / "space.yaml").write_text("optimizer.lr: {low: 1e-3, high: 0.1, log: true}")
    search = ["--space", tmp_path / "space.yaml", "--trials", "4", "--at_once", "2"]
    short = ["--train.epochs", "1", "--data.train_size", "300"]
    do_without_slurm(tmp_path, "sweep", *search, *words(tmp_path / "one", *short))
    submit = [sys.executable, "-m", "trainer", "submit", *search, "--workers", "2", "--submit"]
    number = slurm.call(*submit, *words(tmp_path / "array", *short)).split()[-1]
    for worker in (1, 2):
        ended = slurm.wait(f"{number}_{worker}")
        log = tmp_path / "array" / f"slurm-{number}_{worker}.log"
        assert ended["JobState"] == "COMPLETED", log.read_text()
    digests = [
        [trial["final_weights_sha256"] for trial in Run(folder, 0).json("sweep.json")["trials"]]
        for folder in (tmp_path / "one", tmp_path / "array")
    ]
    assert digests[0] == digests[1]
    assert len(set(digests[0])) == 4


def test_a_mistake_is_named_once_and_ends_the_job_with_2(slurm: Slurm, tmp_path: Path) -> None:
    run = Job(slurm, tmp_path / "run", TWO_NODES, "--train.epoch", "5").end("FAILED")
    assert run.exit_code == 2
    assert run.output.count("did you mean train.epochs?") == 1
    assert not run.folder.exists()


def test_a_job_that_is_submitted_from_another_folder(slurm: Slurm, tmp_path: Path) -> None:
    number = slurm.submit(f"--output={tmp_path}/log", f"--chdir={tmp_path}", JOB)
    assert slurm.wait(number)["ExitCode"] == "2:0"
    assert "submit from the repository's folder" in (tmp_path / "log").read_text()


def test_it_refuses_to_run_in_a_shell() -> None:
    plain = {name: value for name, value in os.environ.items() if not name.startswith("SLURM")}
    done = subprocess.run([str(JOB)], env=plain, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "sbatch launch/slurm.sbatch --config FILE" in done.stderr


def test_a_job_that_reaches_its_time_limit_saves_and_is_requeued(
    limited: Job, undisturbed: Run
) -> None:
    """The last test, so that nothing waits for the limit."""
    check_requeued(limited, undisturbed, most=9)  # it may come again on a busy machine
