"""Where the figures of a run go: metrics.jsonl, the screen, trackers, and functions of users."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Sequence
from typing import Any

from trainer.run.console import Progress
from trainer.run.metrics_log import MetricsLog
from trainer.run.near_copy_warning import NearCopyWarning
from trainer.run.tracking.tracker import GuardedTracker
from trainer.training.observer import Record

Hook = Callable[[Record], object]

log = logging.getLogger("lockstep")


class Hooks:
    """A function of the user's for each event of metrics.jsonl, called in the main thread.

    Its first failure gives one warning, and it is not called again; the training goes on.

    Args:
        on_step: gets the record of each step, some of them together about every second.
        on_epoch: gets the record of each epoch.
    """

    def __init__(self, on_step: Hook | None = None, on_epoch: Hook | None = None) -> None:
        self._by_event = {"step": on_step, "epoch": on_epoch}

    def log(self, records: Sequence[Record]) -> None:
        """Hand on the records, each as a copy."""
        for record in records:
            event = record["event"]
            hook = self._by_event[event]
            if hook is None:
                continue
            try:
                hook(copy.deepcopy(record))
            except (Exception, SystemExit) as error:
                self._by_event[event] = None
                log.warning(
                    "on_%s is not called any more: it failed with %s: %s; the training goes on",
                    event, type(error).__name__, error,
                )  # fmt: skip


class Recorder:
    """The observer of a run, on rank 0."""

    def __init__(
        self,
        epochs: int,
        progress: Progress,
        metrics: MetricsLog,
        trackers: list[GuardedTracker],
        hooks: Hooks,
        wandb_run_id: str,
        near_copies: NearCopyWarning,
    ) -> None:
        self.epochs = epochs
        self.progress = progress
        self.metrics = metrics
        self.trackers = trackers
        self.hooks = hooks
        self.wandb_run_id = wandb_run_id
        self.near_copies = near_copies

    def epoch_started(self, epoch: int, steps: int, done: int) -> None:
        """Show an epoch of `steps` steps that begins, or goes on after `done` of them."""
        self.progress.start_epoch(epoch, self.epochs, steps, done)

    def steps_done(self, records: Sequence[Record], progress: Record) -> None:
        """Record the steps since the last call, and show the running figures of the epoch."""
        self.metrics.write(records)
        self.progress.update(**progress)
        self._hand_on(records)
        self.near_copies.start()  # now, as the first step was not to wait for it

    def epoch_done(self, record: Record) -> None:
        """Record and show an epoch that was trained and validated."""
        self.metrics.write([record])
        self.progress.end_epoch(record)
        self._hand_on([record])
        self.near_copies.say()

    def position(self) -> Record:
        """Return the length of metrics.jsonl, and the tracker's run."""
        return {"metrics_bytes": self.metrics.length_bytes, "wandb_run_id": self.wandb_run_id}

    def sync(self) -> None:
        """Bring metrics.jsonl to the disk."""
        self.metrics.sync()

    def go_back(self, position: Record) -> None:
        """Cut metrics.jsonl; trackers are sent the same steps again."""
        self.metrics.cut(position["metrics_bytes"])

    def finish(self, results: dict[str, Any] | None, *, stopped: bool = False) -> None:
        """End the trackers."""
        while self.trackers:  # an interrupt ends one, and the others are still to be ended
            self.trackers.pop(0).finish(results, stopped=stopped)

    def _hand_on(self, records: Sequence[Record]) -> None:
        for tracker in self.trackers:
            tracker.log(records)
        self.hooks.log(records)
