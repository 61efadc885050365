"""What trackers have in common: whatever goes wrong in one costs one warning and nothing else."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

from trainer.base.timeouts import run_with_timeout
from trainer.training.observer import Record

CALL_TIMEOUT_S = 60
"""how long a call to a tracker's library may take"""
FINISH_TIMEOUT_S = 180
"""how long the last uploads may take"""

SHARES = ("accuracy", "lab_accuracy", "loss", "calibration_error")
"""of the part `test` of the results, which are logged"""
PICTURES = ("curves", "confusion", "calibration", "mistakes", "features")

MOST_CURVES = 256
"""classes with a curve of their own; of more, the trackers' pages get slow"""

T = TypeVar("T")

log = logging.getLogger("lockstep")


class Tracker(Protocol):
    """Follows a run, on rank 0."""

    def log(self, records: Sequence[Record]) -> None:
        """Take records of metrics.jsonl; after going back, the same steps again."""

    def finish(
        self, results: dict[str, Any] | None, output_dir: Path, stopped: bool = False
    ) -> None:
        """Take the results and the pictures in `output_dir`, and close everything.

        Args:
            results: what results.json holds, or None where the run ended before its end.
            stopped: whether it was stopped to go on later, which is no failure.
        """


class Guarded:
    """A tracker whose calls have a time limit; the first that fails ends it, never the training.

    Args:
        name: for the warning.
        start: makes the tracker.
        let_go: ends what is left of one that has failed.
    """

    def __init__(
        self, name: str, start: Callable[[], Tracker], let_go: Callable[[], None] | None = None
    ) -> None:
        self._name = name
        self._let_go = let_go
        self._tracker: Tracker | None = None
        self._tracker = self._attempt(start, CALL_TIMEOUT_S)

    def log(self, records: Sequence[Record]) -> None:
        """As `Tracker`."""
        tracker = self._tracker
        if tracker is not None:
            self._attempt(lambda: tracker.log(records), CALL_TIMEOUT_S)

    def finish(
        self, results: dict[str, Any] | None, output_dir: Path, stopped: bool = False
    ) -> None:
        """As `Tracker`."""
        tracker = self._tracker
        if tracker is not None:
            self._attempt(lambda: tracker.finish(results, output_dir, stopped), FINISH_TIMEOUT_S)
        self._tracker = None

    def _attempt(self, call: Callable[[], T], limit_s: float) -> T | None:
        try:
            return run_with_timeout(limit_s, call)
        except (Exception, SystemExit) as error:
            self._tracker = None
            log.warning(
                "%s is off from here on; metrics.jsonl has everything: %s",
                self._name,
                first_line(error),
            )
            if self._let_go:
                self._let_go()
            return None


def first_line(error: BaseException) -> str:
    """An error in a line."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
