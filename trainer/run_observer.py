"""What rank 0 does with the figures of a run: a line on the screen, metrics.jsonl, a tracker."""

from __future__ import annotations

from collections.abc import Sequence

from trainer.console import Progress
from trainer.observer import Record
from trainer.tracking import MetricsLog, WandbTracker


class RunObserver:
    """The observer of a run.

    Args:
        epochs: of the whole run.
        progress: the screen.
        metrics: metrics.jsonl.
        tracker: Weights & Biases.
        wandb_run_id: the run there, to go on with after a resume.
    """

    def __init__(
        self,
        epochs: int,
        progress: Progress,
        metrics: MetricsLog,
        tracker: WandbTracker,
        wandb_run_id: str,
    ) -> None:
        self.epochs = epochs
        self.progress = progress
        self.metrics = metrics
        self.tracker = tracker
        self.wandb_run_id = wandb_run_id

    def epoch_started(self, epoch: int, steps: int, done: int) -> None:
        """An epoch of `steps` steps begins, or goes on after `done` of them."""
        self.progress.start_epoch(epoch, self.epochs, steps, done)

    def steps_done(self, records: Sequence[Record], progress: Record) -> None:
        """Steps since the last call, and the running figures of the epoch."""
        self._record(records)
        self.progress.update(
            progress["steps"],
            progress["loss"],
            progress["accuracy"],
            progress["samples_per_second"],
        )

    def epoch_done(self, record: Record) -> None:
        """An epoch was trained and validated."""
        self._record([record])
        self.progress.end_epoch(record)

    def flush(self) -> Record:
        """Bring metrics.jsonl to the disk; its length and the tracker's run, for a resume."""
        return {"metrics_bytes": self.metrics.sync(), "wandb_run_id": self.wandb_run_id}

    def _record(self, records: Sequence[Record]) -> None:
        self.metrics.write(list(records))
        self.tracker.log(list(records))
