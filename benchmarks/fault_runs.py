"""Start, watch and kill runs for the fault campaign, and compare their ends.

It uses only what a user has: the command, the files in output_dir, and the processes.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import apart
import psutil

MARK = "LOCKSTEP_FAULT_RUN"
"""an environment variable of all processes of a run, by which they are found"""
GONE_LIMIT_S = 10.0
"""how long a run's processes may live on when their launcher is killed, or has ended"""
RANK_GONE_LIMIT_S = 45.0
"""the same where one rank is killed: torchrun itself gives the others 30 s"""
START_LIMIT_S = 300.0
"""how long a launcher may take to start its ranks"""
RUN_LIMIT_S = 1800.0
"""how long a run may take"""
POLL_S = 0.01
"""between two looks at files"""
PROCESSES_POLL_S = 0.05
"""between two looks at all processes, which cost more"""


class FaultError(Exception):
    """Something was lost, or did not go as promised."""


@dataclass(frozen=True)
class Recipe:
    """A run of the campaign: some seconds of training with many checkpoints."""

    config: str
    every_steps: int
    more: tuple[str, ...] = ()
    root: str | None = None

    def command(self, folder: Path, processes: int) -> list[str]:
        """Return the command that trains in `folder`."""
        words = ["--threads", "1", "--checkpoint.every_steps", str(self.every_steps), *self.more]
        command = apart.train_command(
            self.config, folder, *words, root=self.root, processes=processes
        )
        return apart.by_torchrun(command, processes) if processes > 1 else command


RECIPES = {
    "digits": Recipe("digits", 10, ("--train.epochs", "30")),
    "fashion_mnist": Recipe(
        "fashion_mnist",
        5,
        (
            *("--data.train_size", "3000", "--data.test_size", "1000", "--train.epochs", "10"),
            *("--model.args", '{"widths": [12, 24, 24, 48, 48]}'),
        ),
    ),
}


class Attempt:
    """One start of a run's command, with all of its processes.

    Args:
        folder: the run's; what the command prints is appended to FOLDER.log.
        recipe: what is run.
        processes: 1 is plain Python, more are started by torchrun.
    """

    def __init__(self, folder: Path, recipe: Recipe, processes: int) -> None:
        self.folder = folder
        self.count = processes
        with log_of(folder).open("a") as log:
            print(f"--- {processes} processes", file=log, flush=True)
            self.launcher = subprocess.Popen(
                recipe.command(folder, processes),
                env=apart.environment() | {MARK: str(folder)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def ranks(self) -> list[int]:
        """Return the process ids of the ranks that have been started, by rank."""
        if self.count == 1:
            return [self.launcher.pid]
        found = find_processes(self.folder)
        return [process for process, rank in sorted(found, key=_rank_of) if rank]

    def wait_for_ranks(self) -> list[int]:
        """Wait until all ranks have been started; return their process ids."""
        self.wait_until(
            lambda: len(self.ranks()) >= self.count, START_LIMIT_S, poll_s=PROCESSES_POLL_S
        )
        return self.ranks()

    def wait_until(
        self, reached: Callable[[], bool], limit_s: float = RUN_LIMIT_S, poll_s: float = POLL_S
    ) -> bool:
        """Wait for something; return whether it came before the launcher's end."""
        deadline_s = time.monotonic() + limit_s
        while not reached():
            if self.launcher.poll() is not None:
                return False
            if time.monotonic() > deadline_s:
                raise FaultError(f"hangs: waited for {limit_s:.0f} s")
            time.sleep(poll_s)
        return True

    def kill(self, victims: Iterable[int]) -> None:
        """Send SIGKILL to processes by their ids."""
        for victim in victims:
            with contextlib.suppress(ProcessLookupError):
                os.kill(victim, signal.SIGKILL)

    def kill_everything(self) -> None:
        """End the launcher, the ranks, and any that are being started meanwhile."""
        self.kill([self.launcher.pid])
        self.launcher.wait()
        while found := find_processes(self.folder):
            self.kill(process for process, _ in found)

    def wait_until_gone(self, limit_s: float = GONE_LIMIT_S) -> float:
        """Wait until no process of the run is left; return the seconds.

        Raises:
            FaultError: some live longer than the limit.
        """
        start_s = time.monotonic()
        while (running := self.launcher.poll() is None) or find_processes(self.folder):
            if time.monotonic() - start_s > limit_s:
                ranks = ", ".join(rank or "none" for _, rank in find_processes(self.folder))
                raise FaultError(
                    f"processes left {limit_s:.0f} s after the kill: ranks {ranks}"
                    + ", the launcher" * running
                )
            time.sleep(PROCESSES_POLL_S)
        return time.monotonic() - start_s

    def finish(self) -> None:
        """Let the run end.

        Raises:
            FaultError: it failed or hangs.
        """
        self.wait_until(lambda: False)
        self.check_exit_code()
        self.wait_until_gone()

    def check_exit_code(self) -> None:
        """Raise a FaultError if the command has failed although nothing disturbed it."""
        if self.launcher.returncode != 0:
            last = log_of(self.folder).read_text().splitlines()[-1:]
            raise FaultError(f"exit code {self.launcher.returncode}: {' '.join(last)}")


def log_of(folder: Path) -> Path:
    """Return the file that the commands of the run in `folder` print to."""
    return folder.with_name(f"{folder.name}.log")


def find_processes(folder: Path) -> list[tuple[int, str]]:
    """Return the process ids of the run in `folder`, and their ranks by the launcher's variable."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):  # it has ended, or is another user's
            variables = process.environ()
            if variables.get(MARK) == str(folder) and process.status() != psutil.STATUS_ZOMBIE:
                found.append((process.pid, variables.get("RANK", "")))
    return found


def _rank_of(process: tuple[int, str]) -> int:
    return int(process[1] or -1)


def logged_step(folder: Path) -> int:
    """Return the last step in metrics.jsonl; 0 if there is none."""
    path = folder / "metrics.jsonl"
    if not path.exists():
        return 0
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 2000))
        steps = re.findall(rb'"step": (\d+),', file.read())
    return int(steps[-1]) if steps else 0


def saved_step(folder: Path) -> int:
    """Return the step of the newest checkpoint; 0 if there is none."""
    names = (path.name for path in (folder / "checkpoints").glob("step-*"))
    return max((int(name.removeprefix("step-")) for name in names), default=0)


def progress(folder: Path) -> int:
    """Return how far a run has come, by its files."""
    return max(logged_step(folder), saved_step(folder))


def read_records(folder: Path, event: str) -> list[dict[str, Any]]:
    """Read the lines of metrics.jsonl for an event, without the clock's figures."""
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    changing = {"seconds", "samples_per_second"}
    return [
        {key: value for key, value in record.items() if key not in changing}
        for record in map(json.loads, lines)
        if record["event"] == event
    ]


def differences(run: Path, undisturbed: Path) -> list[str]:
    """Return how a finished run differs from the undisturbed one; it should not."""
    found = []
    digest = apart.read_results(undisturbed)["final_weights_sha256"]
    if apart.read_results(run)["final_weights_sha256"] != digest:
        found.append("other weights")
    for event in ("step", "epoch"):
        if read_records(run, event) != read_records(undisturbed, event):
            found.append(f"other {event} lines in metrics.jsonl")
    found += [path.name for path in (run / "checkpoints").glob("damaged-*")]
    return found
