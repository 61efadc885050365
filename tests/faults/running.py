"""Runs in the middle of their training, for tests that disturb them."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import psutil

from tests.distributed import forked_runs
from tests.distributed.forked_runs import Forked
from tests.distributed.launch import environment
from tests.runs import command

# Long enough to be interrupted: 15 epochs of 22 steps, a checkpoint every 10 steps.
LONG = ["--train.epochs", "15", "--checkpoint.every_steps", "10"]

# As long where its steps wait, as `start` lets them; otherwise soon at its end, after 88 steps.
SLOW = [
    *("--model.name", f"{Path(__file__).with_name('slow_net.py')}:SlowNet"),
    *("--train.epochs", "4", "--checkpoint.every_steps", "10"),
]


Started = subprocess.Popen[str] | Forked

PYTHON = [sys.executable]
"""a launcher of nothing: the run is one new process"""


def start(
    folder: Path,
    *words: str,
    launcher: list[str] | None = None,
    ranks: int | None = None,
    restarts: int = 0,
    steps: int = 15,
    **env: str,
) -> Started:
    """Start a run in its own session and wait until it has trained more than this many steps.

    Args:
        launcher: how new processes are started; None: it is forked, which takes no seconds.
        ranks: how many are forked by torchrun, which is the process returned.
        restarts: how often it forks them again when one has failed.
    """
    before, env = steps_logged(folder), {"STEP_S": "0.02"} | env
    process: Started
    if launcher is None:
        output = folder.with_name(f"{folder.name}.output")
        script = command(folder, *words)[1:]
        process = forked_runs.start(output, *script, ranks=ranks, restarts=restarts, **env)
    else:
        process = subprocess.Popen(
            command(folder, *words, launcher=launcher),
            env=environment(**env),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
    deadline_s = time.monotonic() + 120
    while steps_logged(folder) <= before + steps:
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline_s
        time.sleep(0.01)
    return process


def steps_logged(folder: Path) -> int:
    path = folder / "metrics.jsonl"
    return path.read_text().count('"step", "epoch"') if path.exists() else 0


def ranks_of(process: Started) -> list[psutil.Process]:
    """The processes that a launcher has started, by their rank."""
    ranks = psutil.Process(process.pid).children()
    if isinstance(process, Forked):
        return sorted(ranks, key=lambda rank: forked_runs.rank_of(rank.name()))
    return sorted(ranks, key=lambda rank: int(rank.environ()["RANK"]))
