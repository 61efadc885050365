"""Signals that ask the run to stop become one flag, which the ranks agree on at a log point."""

from __future__ import annotations

import signal
import sys
import threading
from types import FrameType
from typing import Any

STOP_SIGNALS = [signal.SIGTERM, signal.SIGINT]
if sys.platform != "win32":
    STOP_SIGNALS.append(signal.SIGUSR1)


class StopRequest:
    """Remembers that this process was asked to stop; a second SIGINT stops it at once."""

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        self._handlers_before: dict[signal.Signals, Any] = {}

    def install(self) -> None:
        """Take over the stop signals of this process, which its main thread alone may do."""
        if threading.current_thread() is not threading.main_thread():
            return
        for number in STOP_SIGNALS:
            self._handlers_before[number] = signal.signal(number, self._handle)

    def restore(self) -> None:
        """Give the signals back to whoever had them."""
        while self._handlers_before:
            signal.signal(*self._handlers_before.popitem())

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.signal is signal.SIGINT and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.signal = signal.Signals(number)
        around = getattr(self._handlers_before.get(self.signal), "__self__", None)
        if isinstance(around, StopRequest):  # of the command that this run is a part of
            around._handle(number, frame)
