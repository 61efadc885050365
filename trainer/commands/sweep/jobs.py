"""Processes that each work on one run, forked from this one, which has everything imported.

Whatever a run does to its process, or the kernel to one that takes all memory, the others go on.
"""

from __future__ import annotations

import atexit
import contextlib
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import wait
from multiprocessing.context import ForkProcess
from pathlib import Path

from trainer.base.errors import StoppedOnRequest
from trainer.base.locks import Lock
from trainer.config.schema import RunConfig, folder_of
from trainer.ranks import exit_codes, local_processes, preemption, processes
from trainer.ranks.preemption import STOP_SIGNALS, StopRequest
from trainer.run.run_folder import RunFolder

OUTPUT = "output.txt"
"""what a run prints, in its folder"""

POLL_S = 0.5

_LONGEST_REASON = 500


@dataclass(frozen=True)
class Job:
    """A run that a process works on."""

    config: RunConfig
    work: Callable[[], object]
    lock: Lock
    process: ForkProcess

    @property
    def exit_code(self) -> int | None:
        """That of the process, negative a signal's; None: it runs."""
        return self.process.exitcode

    def reason(self) -> str:
        """Return in one line why the process failed: the last that it printed, or its signal."""
        code = self.exit_code
        if code is not None and code < 0:
            name = signal.Signals(-code).name
            memory = ", as the kernel does where memory is short" if code == -signal.SIGKILL else ""
            return f"killed by {name}{memory}"
        output, text = folder_of(self.config) / OUTPUT, ""
        with contextlib.suppress(OSError):  # it may have failed before it could open this file
            text = output.read_text("utf-8", errors="replace")
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        return lines[-1][:_LONGEST_REASON] if lines else f"ended with code {code}"


class Jobs:
    """Starts jobs and waits for them; a context manager that leaves no process behind.

    Args:
        stop: a request to this process, which is passed on.
        end_s: the moment, by `time.monotonic`, from which it counts as asked to stop; None: never.
        at_once: how many will run, which share the cores.
    """

    def __init__(self, stop: StopRequest, end_s: float | None, at_once: int) -> None:
        self.running: list[Job] = []
        self._stop = stop
        self._end_s = end_s
        self._cores = max(1, processes.usable_cores() // at_once)
        self._passed_on = False

    def start(self, config: RunConfig, work: Callable[[], object], lock: Lock) -> None:
        """Start a job.

        Args:
            work: done in each of the processes that the run has.
            lock: held by them too, until the last has ended.
        """
        folder_of(config).mkdir(exist_ok=True)
        others = [job.lock for job in self.running]
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        process = multiprocessing.get_context("fork").Process(
            target=_be_job, args=(os.getpid(), config, work, self._cores, others)
        )
        process.start()
        self.running.append(Job(config, work, lock, process))

    def wait(self) -> list[Job]:
        """Wait a moment, and return the jobs that have ended by themselves.

        Raises:
            StoppedOnRequest: this process was asked to stop, and all jobs have ended.
        """
        if self.is_asked() and not self._passed_on:
            self._passed_on = True
            for job in self.running:
                os.kill(job.process.pid or 0, signal.SIGTERM)
        wait([job.process.sentinel for job in self.running], POLL_S)
        ended = [job for job in self.running if job.exit_code is not None]
        self.running = [job for job in self.running if job not in ended]
        stopped = [job for job in ended if job.exit_code and self._has_stopped(job)]
        for job in stopped:
            job.lock.release()
        if self._passed_on and not self.running and len(stopped) == len(ended):
            raise StoppedOnRequest("stopped, everything is saved; the same command goes on")
        return [job for job in ended if job not in stopped]

    def is_asked(self) -> bool:
        """Tell whether this process was asked to stop: then it starts no more jobs."""
        late = self._end_s is not None and time.monotonic() > self._end_s
        return self._passed_on or late or self._stop.signal is not None

    def _has_stopped(self, job: Job) -> bool:
        """Tell whether a job that is not finished was asked to stop, perhaps by somebody else."""
        if job.exit_code == exit_codes.STOPPED_ON_REQUEST and not self.is_asked():
            self._stop.signal = signal.SIGTERM
        return self.is_asked()

    def __enter__(self) -> Jobs:
        return self

    def __exit__(self, *_: object) -> None:
        for job in self.running:
            job.process.kill()
            job.process.join()
            job.lock.release()


def _be_job(
    parent: int, config: RunConfig, work: Callable[[], object], cores: int, others: list[Lock]
) -> None:
    """Be a job's process: its whole life."""
    for lock in others:
        lock.file.close()  # or they would be locked as long as this process lives
    for number in STOP_SIGNALS:
        default = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
        signal.signal(number, default)
    preemption.end_with(parent)
    _redirect_output(folder_of(config) / OUTPUT)
    limit = os.environ.get(processes.LIMIT_VARIABLE)
    os.environ[processes.LIMIT_VARIABLE] = limit or str(cores)
    atexit._clear()  # what the other process has to do at its end
    try:
        with exit_codes.program():
            known = RunFolder(folder_of(config)).complete(config)
            local_processes.run(known, work)
    finally:
        atexit._run_exitfuncs()  # which this kind of process leaves out


def _redirect_output(path: Path) -> None:
    file = path.open("a", encoding="utf-8", buffering=1)
    for descriptor in (1, 2):
        os.dup2(file.fileno(), descriptor)
    sys.stdout = sys.stderr = file
