"""The protocol between the engine and the observer of a run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

Record = dict[str, Any]


class Observer(Protocol):
    """Sees what happens in a run, on rank 0; it cannot change the run."""

    def epoch_started(self, epoch: int, steps: int, done: int) -> None:
        """Note that an epoch of `steps` steps begins, or goes on after `done` of them."""

    def steps_done(self, records: Sequence[Record], progress: Record) -> None:
        """Take the steps since the last call, and the running figures of the epoch."""

    def epoch_done(self, record: Record) -> None:
        """Take the record of an epoch that was trained and validated."""

    def position(self) -> Record:
        """Return what a resume from here needs, as JSON."""

    def sync(self) -> None:
        """Write everything seen so far to the disk; called from the thread that saves."""

    def go_back(self, position: Record) -> None:
        """Forget what was seen since `position`: the run goes on from there."""
