"""Kill saves: at every system call by strace, and at every call that Python reports.

There is a checkpoint; a forked child saves another into the same folder and is killed on the way.
Afterwards one of the two must be there whole, and saving must go on.
"""

from __future__ import annotations

import ctypes
import dataclasses
import functools
import itertools
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch

from trainer.checkpoint.writing import Checkpoints
from trainer.config.schema import CheckpointConfig
from trainer.training.run_state import RunState

FIRST, SECOND, THIRD = 1, 2, 3
SCENARIOS = {"the next step": 20, "the same step again": 10}
"""what is saved, and its step; the checkpoint that is there already is of step 10"""

REPORTED = {"open", *(f"os.{call}" for call in "mkdir rename remove rmdir chmod truncate".split())}
"""names of Python's audit events of calls that change a folder; fsync has none"""
CHILD_LIMIT_S = 60
PR_SET_PTRACER = 0x59616D61
CALL = re.compile(r"^\d+ +(\w+)\(")


@dataclass(frozen=True)
class Trial:
    """A save that was to be killed."""

    scenario: str
    how: str
    place: str
    killed: bool
    """False if it ended before it came to the call"""
    problem: str | None


def save(folder: Path, step: int, version: int) -> None:
    """Save a checkpoint that can be told from others, and remove all others."""
    observer = {"metrics_bytes": version, "wandb_run_id": "0"}
    state = {
        "run": dataclasses.asdict(RunState(observer=observer)),
        "optimizer": {},
        "scaler": None,
        "fingerprints": {},
        "environment": {},
    }
    checkpoints = Checkpoints(folder, CheckpointConfig(keep=1))
    checkpoints.save(step, {"model": tensors(version)}, state)
    checkpoints.wait(needed=True)


def tensors(version: int) -> dict[str, torch.Tensor]:
    """Draw weights of some pages."""
    weight = np.random.default_rng(version).standard_normal((64, 64))
    return {"weight": torch.from_numpy(weight), "bias": torch.zeros(version)}


def newest_version(folder: Path) -> int:
    """Return the version of the newest whole checkpoint; 0 without one or with other tensors."""
    found = Checkpoints(folder, CheckpointConfig(keep=1)).newest()
    if found is None:
        return 0
    version: int = found.state["run"]["observer"]["metrics_bytes"]
    model, expected = found.tensors("model"), tensors(version)
    same = all(torch.equal(model[name], expected[name]) for name in expected)
    return version if same and model.keys() == expected.keys() else 0


def problem_of(folder: Path) -> str | None:
    """Return what is wrong with a folder in which a save was killed; None if nothing is."""
    try:
        if newest_version(folder) not in (FIRST, SECOND):
            return "no whole checkpoint"
        save(folder, 30, THIRD)
        if newest_version(folder) != THIRD:
            return "the save after it is not the newest"
    except Exception as error:  # a user would have had any of them
        return f"{type(error).__name__}: {error}"
    return None


def trial(scenario: str, how: str, place: str, kill: Callable[[Path, int], bool]) -> Trial:
    """Kill one save; return what came of it."""
    with tempfile.TemporaryDirectory() as parent:
        folder = Path(parent) / "checkpoints"
        save(folder, 10, FIRST)
        killed = kill(folder, SCENARIOS[scenario])
        return Trial(scenario, how, place, killed, problem_of(folder))


def was_killed(child: int) -> bool:
    """Wait for a forked child; return whether it was killed."""
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL:
        return True
    if status != 0:
        raise RuntimeError(f"the saving child ended with status {status}")
    return False


# ------------------------------------------------------------------ by Python's own reports


def kill_by_reports(scenario: str) -> Iterator[Trial]:
    """Kill a save at the first call that Python reports, at the second, and so on to the last."""
    for number in itertools.count(1):
        kill = functools.partial(_at_call, number=number)
        found = trial(scenario, "reported calls", f"call {number}", kill)
        if not found.killed:
            return
        yield found


def _at_call(folder: Path, step: int, number: int) -> bool:
    child = os.fork()
    if child == 0:
        _arm(number)
        _save_and_exit(folder, step)
    return was_killed(child)


def _arm(number: int) -> None:
    """Make this process kill itself at the reported call of this number."""
    calls = itertools.count(1)
    fsync = os.fsync

    def count() -> None:
        if next(calls) == number:
            os.kill(os.getpid(), signal.SIGKILL)

    def counted_fsync(fd: Any) -> None:
        count()
        fsync(fd)

    os.fsync = counted_fsync
    sys.addaudithook(lambda event, _: count() if event in REPORTED else None)


def _save_and_exit(folder: Path, step: int) -> NoReturn:
    """Save in the forked child, which must not return or run what its parent has registered."""
    signal.alarm(CHILD_LIMIT_S)
    try:
        save(folder, step, SECOND)
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


# ------------------------------------------------------------------ by strace


def why_no_strace() -> str | None:
    """Return why strace cannot be used; None if it can."""
    if shutil.which("strace") is None:
        return "strace is not installed"
    try:
        trial("the next step", "strace", "nowhere", functools.partial(_traced, options=[]))
    except RuntimeError as error:
        return str(error)
    return None


def kill_by_strace(
    scenario: str, draws: int | None, generator: np.random.Generator
) -> Iterator[Trial]:
    """Kill a save at the entry of each of its system calls, or of `draws` of them."""
    places = [
        (call, number)
        for call, count in sorted(_system_calls(scenario).items())
        for number in range(1, count + 1)
    ]
    if draws is not None and draws < len(places):
        chosen = generator.choice(len(places), draws, replace=False)
        places = [places[index] for index in sorted(chosen)]
    for call, number in places:
        options = ["-e", f"trace={call}", "-e", f"inject={call}:signal=SIGKILL:when={number}"]
        kill = functools.partial(_traced, options=options)
        yield trial(scenario, "system calls", f"{call} {number}", kill)


def _system_calls(scenario: str) -> Counter[str]:
    """Count the system calls of a save."""
    with tempfile.NamedTemporaryFile("r") as log:
        options = ["-e", "trace=all", "-o", log.name]
        trial(scenario, "strace", "nowhere", functools.partial(_traced, options=options))
        return Counter(match[1] for line in log if (match := CALL.match(line)))


def _traced(folder: Path, step: int, options: list[str]) -> bool:
    """Save in a child under strace; return whether it was killed."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(writer)
        # Some systems let only ancestors trace a process; this one may be traced by all.
        ctypes.CDLL(None).prctl(PR_SET_PTRACER, ctypes.c_ulong(-1), 0, 0, 0)
        if os.read(reader, 1):
            _save_and_exit(folder, step)
        os._exit(0)
    os.close(reader)
    quiet = [] if "-o" in options else ["-o", os.devnull]
    tracer = subprocess.Popen(
        ["strace", "-f", "-e", "signal=none", *quiet, *options, "-p", str(child)],
        stderr=subprocess.PIPE,
        text=True,
    )
    assert tracer.stderr is not None
    said = tracer.stderr.readline()
    if "attached" in said:
        os.write(writer, b"1")
    os.close(writer)
    killed = was_killed(child)
    tracer.communicate()
    if "attached" not in said:
        raise RuntimeError(f"strace cannot trace here: {said.strip()}")
    return killed
