"""The protocol of trackers, and the guard around each: its faults never cost a training."""

from __future__ import annotations

import copy
import logging
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Any, Protocol, TypeVar

from trainer.base.errors import first_line
from trainer.training.observer import Record

START_TIMEOUT_S = 120
"""how long a tracker may take to start, its server's answer included"""
CALL_TIMEOUT_S = 60
"""how long a call to a tracker's library may take"""
FINISH_TIMEOUT_S = 180
"""how long the last uploads may take"""

T = TypeVar("T")

log = logging.getLogger("lockstep")


class Tracker(Protocol):
    """Follows a run, on rank 0; a class under `@register_tracker` is one.

    A registered class is created with the first record of a run that starts or goes on, as
    `(config, folder, step)`: the keys of the configuration in dotted form, the run's folder, and
    the step after which the run goes on, 0 at its start. All calls come from one thread, which is
    not the main one. A tracker that also has `mark_stopped()` gets this call before `finish(None)`
    where the run was stopped to go on later.
    """

    def log(self, record: Record) -> None:
        """Take a record of metrics.jsonl: its "event" is "step" or "epoch".

        After a resume or a rollback, records of steps that it has already come again.
        """

    def finish(self, results: dict[str, Any] | None) -> None:
        """Take the content of results.json, None if the run ended early, and close everything."""


class GuardedTracker:
    """A tracker whose calls have a time limit; the first that fails ends it, never the training.

    It starts with its first record: the first step does not wait for a library or a server.

    Args:
        abandon: cleans up after one that has failed.
    """

    def __init__(
        self, name: str, start: Callable[[], Tracker], abandon: Callable[[], None] | None = None
    ) -> None:
        self._name = name
        self._abandon = abandon
        self._calls: SimpleQueue[tuple[Callable[[], Any], Future[Any]] | None] = SimpleQueue()
        # One thread for all calls, as libraries keep their current run in it; a daemon, as Python's
        # exit must not wait for a call that hangs.
        threading.Thread(target=self._work, name=f"tracker {name}", daemon=True).start()
        self._start: Callable[[], Tracker] | None = start
        self._tracker: Tracker | None = None

    def log(self, records: Sequence[Record]) -> None:
        """Hand on copies of records of metrics.jsonl."""
        tracker, copies = self._begin(), copy.deepcopy(records)

        def log(tracker: Tracker) -> None:
            for record in copies:
                tracker.log(record)

        if tracker is not None:
            self._call(lambda: log(tracker), CALL_TIMEOUT_S)

    def finish(self, results: dict[str, Any] | None, *, stopped: bool) -> None:
        """End the tracker.

        Args:
            results: the content of results.json, or None if the run ended early.
            stopped: whether it was stopped to go on later, which is not a failure.
        """
        tracker, copied = self._begin(), copy.deepcopy(results)

        def finish(tracker: Tracker) -> None:
            if stopped and hasattr(tracker, "mark_stopped"):
                tracker.mark_stopped()
            tracker.finish(copied)

        if tracker is not None:
            self._call(lambda: finish(tracker), FINISH_TIMEOUT_S)
        self._end()

    def _begin(self) -> Tracker | None:
        """Start unless that was done; return None if the tracker has failed."""
        start, self._start = self._start, None
        if start is not None:
            self._tracker = self._call(start, START_TIMEOUT_S)
        return self._tracker

    def _work(self) -> None:
        while (waiting := self._calls.get()) is not None:
            call, future = waiting
            try:
                future.set_result(call())
            except BaseException as error:
                future.set_exception(error)

    def _call(self, call: Callable[[], T], limit_s: float) -> T | None:
        future: Future[T] = Future()
        self._calls.put((call, future))
        try:
            return future.result(limit_s)
        except KeyboardInterrupt:  # perhaps because the library hangs: do not wait for it again
            self._end()
            if self._abandon:
                self._abandon()
            raise
        except (Exception, SystemExit) as error:
            self._end()
            timed_out = isinstance(error, TimeoutError) and not future.done()
            log.warning(
                "%s is off from here on; metrics.jsonl has everything: %s",
                self._name,
                f"no answer within {limit_s} s" if timed_out else first_line(error),
            )
            if self._abandon:
                self._abandon()
            return None

    def _end(self) -> None:
        self._tracker = None
        self._calls.put(None)  # ends the thread
