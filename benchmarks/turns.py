"""Have processes train one epoch each time it is their turn: both ends of the line to them.

The line is a socket of its own, as libraries print on standard output.

    driver                      contender
                    <- ready    set up, before its first epoch
    go ->
                    <- epoch    done: its seconds, the threads that it had
    go -> ...                   until its last epoch, which does not count; then it ends by itself
"""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Self

import apart
import torch

ANSWER_LIMIT_S = 900.0
"""how long a contender may be silent"""
LAST_EPOCHS = 1
"""that do not count: what a library does at its end would disturb the one whose turn is next"""
END_LIMIT_S = 120.0
"""how long a contender may take to end after its last epoch"""
LOG_LINES = 15


class Turns:
    """The contender's end.

    Args:
        descriptor: of the open socket.
        version: of the library that trains.
    """

    def __init__(self, descriptor: int, version: str) -> None:
        self.line = socket.socket(fileno=descriptor).makefile("rw", encoding="utf-8")
        self.version = version
        self.said_ready = False
        self.start_s = 0.0

    def wait(self) -> None:
        """Wait for the turn; from here on time counts.

        Raises:
            SystemExit: the driver has gone.
        """
        if not self.said_ready:
            self._say({"version": self.version})
            self.said_ready = True
        if not self.line.readline():
            sys.exit("the driver has gone")
        self.start_s = time.perf_counter()

    def report(self, seconds: float | None = None) -> None:
        """End the turn.

        Args:
            seconds: that count; None: all since it began.
        """
        if seconds is None:
            seconds = time.perf_counter() - self.start_s
        self._say({"seconds": seconds, "threads": torch.get_num_threads()})

    @contextlib.contextmanager
    def epoch(self) -> Iterator[None]:
        """Wait for the turn and end it after what is inside this context."""
        self.wait()
        yield
        self.report()

    def callback(self, base: type, start: str, end: str) -> Any:
        """Return a callback of a library that waits before an epoch and ends the turn after it.

        Args:
            base: the library's class of callbacks.
            start: its method that is called before an epoch.
            end: its method that is called after an epoch.
        """
        methods = {start: lambda *_, **__: self.wait(), end: lambda *_, **__: self.report()}
        return type("InTurns", (base,), methods)()

    def _say(self, message: dict[str, Any]) -> None:
        self.line.write(json.dumps(message) + "\n")
        self.line.flush()


class Process:
    """The driver's end, a context manager that leaves no process behind.

    Args:
        words: of the contender's command line; the socket's number follows them.
        search: folders where Python looks for modules, after the repository.
        log: the file for what it prints.
        threads: how many it must compute with.
    """

    def __init__(self, words: list[str], search: Sequence[Path], log: Path, threads: int) -> None:
        self.log = log
        self.threads = threads
        ours, theirs = socket.socketpair()
        with theirs, log.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, *words, str(theirs.fileno())],
                env=apart.environment(*search),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                pass_fds=[theirs.fileno()],
            )
        ours.settimeout(ANSWER_LIMIT_S)
        self.line = ours.makefile("rw", encoding="utf-8")
        ours.close()  # the file above holds it open

    def wait_until_ready(self) -> str:
        """Return the version of its library."""
        version: str = self._hear()["version"]
        return version

    def epoch(self) -> float:
        """Let it train an epoch; return the seconds."""
        with contextlib.suppress(BrokenPipeError):  # it has ended, which `_hear` explains
            self.line.write("go\n")
            self.line.flush()
        heard = self._hear()
        if heard["threads"] != self.threads:
            raise RuntimeError(f"{heard['threads']} threads instead of {self.threads}")
        return float(heard["seconds"])

    def finish(self) -> None:
        """Let it train its last epoch, which does not count, and wait for its end."""
        self.epoch()
        if self.process.wait(END_LIMIT_S) != 0:
            raise self._failed()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(BrokenPipeError):
            self.line.close()
        self.process.kill()
        self.process.wait()

    def _hear(self) -> dict[str, Any]:
        text = self.line.readline()
        if not text:
            raise self._failed()
        heard: dict[str, Any] = json.loads(text)
        return heard

    def _failed(self) -> RuntimeError:
        lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()
        return RuntimeError("\n".join([f"{self.log.stem} failed:", *lines[-LOG_LINES:]]))
