"""Start a program as `subprocess.Popen` does, but forked from one with the slow imports behind it.

It is a process by itself, or the ranks of a torchrun that forks them too.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch

from tests.distributed.launch import fork_one, run_python


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


def start(output: Path, *words: str, ranks: int | None = None, **env: str) -> Forked:
    """Start a script, in a session of its own.

    Args:
        ranks: how many torchrun starts, which is the process returned; None: without torchrun.
    """
    output.unlink(missing_ok=True)
    if ranks is None:
        return Forked(fork_one(env, output, output, _lead, *words), output)
    return Forked(fork_one(env, output, output, _be_torchrun, str(ranks), *words), output)


def start_code(folder: Path, code: str, *arguments: str, **env: str) -> Forked:
    """Start `python -c CODE ARGUMENTS`; what it prints is in new files of a folder."""
    number = len(list(folder.glob("code-*.out")))
    output, errors = (folder / f"code-{number}.{kind}" for kind in ("out", "err"))
    output.touch()
    return Forked(fork_one(env, output, errors, run_python, "-c", code, *arguments), output, errors)


def _lead(*words: str) -> None:
    os.setsid()
    run_python(*words)


def _be_torchrun(ranks: str, *words: str) -> None:
    from torch.distributed import run
    from torch.distributed.elastic.multiprocessing import subprocess_handler

    os.setsid()
    subprocess_handler.SubprocessHandler._popen = _fork_rank
    run.main(["--standalone", "--nproc_per_node", ranks, *words])


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
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(write_through=True)  # type: ignore[union-attr]
    run_python(*words)
