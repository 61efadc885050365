"""Ask a process to stop: by a signal, or because its launcher has ended.

The request only sets a flag, which the ranks agree on at a log point.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from pathlib import Path
from types import FrameType
from typing import Any

STOP_SIGNALS = [signal.SIGTERM, signal.SIGINT]
if sys.platform != "win32":
    STOP_SIGNALS.append(signal.SIGUSR1)

POLL_S = 0.5
"""between two checks whether the launcher still runs"""

ORPHAN_S = 30.0
"""for a process without a launcher to save and end; launchers give as much"""


class StopRequest:
    """Remembers that this process was asked to stop; a second SIGINT stops it at once."""

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        self._interrupted = False
        self._handlers_before: dict[signal.Signals, Any] = {}

    def install(self) -> None:
        """Handle the stop signals of this process; only its main thread may do that."""
        if threading.current_thread() is not threading.main_thread():
            return
        for number in STOP_SIGNALS:
            self._handlers_before[number] = signal.signal(number, self._handle)

    def restore(self) -> None:
        """Put the former handlers back."""
        while self._handlers_before:
            signal.signal(*self._handlers_before.popitem())

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT:
            if self._interrupted:
                raise KeyboardInterrupt
            self._interrupted = True
        self.signal = signal.Signals(number)
        outer = getattr(self._handlers_before.get(self.signal), "__self__", None)
        if isinstance(outer, StopRequest):  # of the command that this run is a part of
            outer._handle(number, frame)


def end_with_launcher() -> None:
    """Ask this process to stop when its launcher ends, for whatever reason.

    A launcher that is killed cannot tell its workers, which would go on and lock the run's folder.
    The kernel's own signal for it, PR_SET_PDEATHSIG, comes when the thread that started this
    process ends, which in a program of several threads may be long before the program does.
    """
    # Accelerate sets this variable, its choice for torch.compile, in every process it launches.
    launched = "TORCHELASTIC_RUN_ID" in os.environ or "ACCELERATE_DYNAMO_BACKEND" in os.environ
    if not launched or sys.platform != "linux":
        return
    launcher = os.getppid()
    if launcher == 1 and not _is_python(launcher):  # it has ended already
        sys.exit(1)
    end_with(launcher)


def end_with(parent: int) -> None:
    """Ask this process to stop when its parent ends, and kill it if it does not.

    Args:
        parent: the process's number; if it has ended already, that is noticed at once.
    """
    threading.Thread(target=_stop_after, args=[parent], daemon=True).start()


def _stop_after(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(POLL_S)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(ORPHAN_S)
    os.kill(os.getpid(), signal.SIGKILL)


def _is_python(process: int) -> bool:
    """Tell whether a process runs Python, as launchers do, even as a container's first process."""
    words = Path(f"/proc/{process}/cmdline").read_bytes().split(b"\0")
    return b"python" in words[0]
