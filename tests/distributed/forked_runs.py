"""Start a program as `subprocess.Popen` does, but forked from one with the slow imports behind it.

It is a process by itself, or the ranks of a torchrun that forks them too.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import IO, Any

import torch

from tests.distributed.launch import fork_one, run_python

NAME = "rank {rank}"
"""of a forked process, whose variables nobody else can read, unlike those of a new one"""


def rank_of(name: str) -> int:
    """Return the rank of a process with this name."""
    return int(name.removeprefix(NAME.format(rank="")))


class Forked:
    """A forked process, with what is used of `subprocess.Popen`.

    Args:
        output: the file that has what it prints.
        errors: that of its standard error, where it is another one.
    """

    def __init__(
        self, process: BaseProcess, output: Path | None = None, errors: Path | None = None
    ) -> None:
        assert process.pid is not None
        self.process, self.pid = process, process.pid
        self.output, self.errors = output, errors

    @property
    def returncode(self) -> int | None:
        """The exit code, or the negative number of a signal."""
        return self.process.exitcode

    def poll(self) -> int | None:
        """Return the exit code; None while it runs."""
        return self.process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end; return the exit code."""
        self.process.join(timeout)
        if self.returncode is None:
            raise subprocess.TimeoutExpired(str(self.process), timeout or 0.0)
        return self.returncode

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """Wait for its end; return what it has printed, and its standard error if it is apart."""
        self.wait(timeout)
        assert self.output is not None
        return self.output.read_text(), self.errors.read_text() if self.errors else ""

    def wait_for_output(self, text: str, limit_s: float = 60.0) -> None:
        """Wait until it has printed this."""
        assert self.output is not None
        deadline_s = time.monotonic() + limit_s
        while not (self.output.exists() and text in self.output.read_text()):
            assert time.monotonic() < deadline_s and self.returncode is None, text
            time.sleep(0.01)

    def send_signal(self, number: int) -> None:
        """Send it a signal."""
        os.kill(self.pid, number)

    def kill(self) -> None:
        """Kill it."""
        self.process.kill()


def start(
    output: Path, *words: str, ranks: int | None = None, restarts: int = 0, **env: str
) -> Forked:
    """Start a script, in a session of its own.

    Args:
        ranks: how many torchrun starts, which is the process returned; None: without torchrun.
        restarts: how often it starts them again when one has failed.
    """
    output.unlink(missing_ok=True)
    if ranks is None:
        return Forked(fork_one(env, output, output, _lead, *words), output)
    options = ["--standalone", "--nproc_per_node", str(ranks), "--max-restarts", str(restarts)]
    return start_torchrun(output, *options, *words, **env)


def start_torchrun(output: Path, *words: str, **env: str) -> Forked:
    """Start torchrun with its own options, a script and its arguments, in a session of its own.

    Args:
        output: to which the output is appended.
    """
    return Forked(fork_one(env, output, output, _be_torchrun, *words), output)


def start_code(folder: Path, code: str, *arguments: str, **env: str) -> Forked:
    """Start `python -c CODE ARGUMENTS`; what it prints is in new files of a folder."""
    number = len(list(folder.glob("code-*.out")))
    output, errors = (folder / f"code-{number}.{kind}" for kind in ("out", "err"))
    output.touch()
    return Forked(fork_one(env, output, errors, run_python, "-c", code, *arguments), output, errors)


def popen(
    command: list[str],
    *,
    env: dict[str, str],
    stdout: IO[Any],
    pass_fds: Sequence[int] = (),
    start_new_session: bool = False,
    **_: object,
) -> Forked:
    """Start a program in Python that `subprocess.Popen` would start, with one file for its output.

    Args:
        pass_fds: none, or that of a socket, whose number is the last word.
    """
    log, words = Path(stdout.name), command[1:]
    with contextlib.ExitStack() as stack:
        lines = [stack.enter_context(socket.socket(fileno=os.dup(one))) for one in pass_fds]
        process = fork_one(env, log, log, _be_program, start_new_session, lines, *words)
    return Forked(process, log)


def _be_program(start_new_session: bool, lines: list[socket.socket], *words: str) -> None:
    if start_new_session:
        os.setsid()
    sys.path[:0] = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    numbers = [str(line.detach()) for line in lines]
    run_python(*words[: len(words) - len(numbers)], *numbers)


def _lead(*words: str) -> None:
    os.setsid()
    run_python(*words)


def _be_torchrun(*words: str) -> None:
    from torch.distributed import run

    os.setsid()
    fork_what_torchrun_starts()
    run.main(list(words))


def fork_what_torchrun_starts() -> None:
    """Let torchrun's agents in this process fork their ranks."""
    from torch.distributed.elastic.multiprocessing import subprocess_handler

    subprocess_handler.SubprocessHandler._popen = _fork_rank


def _fork_rank(_: Any, arguments: tuple[str, ...], env: dict[str, str]) -> Forked:
    """Fork what torchrun would start: python -u script ..."""
    python, unbuffered, *words = arguments
    assert (python, unbuffered) == (sys.executable, "-u")
    context = multiprocessing.get_context("fork")
    rank = context.Process(target=_be_rank_of_torchrun, args=(env, words))
    rank.start()
    return Forked(rank)


def _be_rank_of_torchrun(env: dict[str, str], words: list[str]) -> None:
    os.setsid()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
        default = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
        signal.signal(number, default)
    os.environ.clear()
    os.environ.update(env)
    torch.distributed.set_debug_level_from_env()
    Path("/proc/self/comm").write_text(NAME.format(rank=env["RANK"]))
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(write_through=True)  # type: ignore[union-attr]
    run_python(*words)
