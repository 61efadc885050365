"""What rank 0 does with the figures of a run: a line on the screen, metrics.jsonl, a tracker."""

from __future__ import annotations

from collections.abc import Sequence

from trainer.run.console import Progress
from trainer.run.hooks import Hooks
from trainer.run.metrics_log import MetricsLog
from trainer.run.tracking.trackers import Trackers
from trainer.training.observer import Record


class RunObserver:
    """The observer of a run.

    Args:
        epochs: of the whole run.
        progress: the screen.
        metrics: metrics.jsonl.
        trackers: Weights & Biases and the like.
        wandb_run_id: the run there, to go on with after a resume.
        hooks: of whoever started the run from Python.
    """

    def __init__(
        self,
        epochs: int,
        progress: Progress,
        metrics: MetricsLog,
        trackers: Trackers,
        wandb_run_id: str,
        hooks: Hooks,
    ) -> None:
        self.epochs = epochs
        self.progress = progress
        self.metrics = metrics
        self.trackers = trackers
        self.wandb_run_id = wandb_run_id
        self.hooks = hooks

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
        self.hooks.see(records)

    def epoch_done(self, record: Record) -> None:
        """An epoch was trained and validated."""
        self._record([record])
        self.progress.end_epoch(record)
        self.hooks.see([record])

    def position(self) -> Record:
        """The length of metrics.jsonl, and the tracker's run."""
        return {"metrics_bytes": self.metrics.length_bytes, "wandb_run_id": self.wandb_run_id}

    def sync(self) -> None:
        """Bring metrics.jsonl to the disk."""
        self.metrics.sync()

    def go_back(self, position: Record) -> None:
        """Cut metrics.jsonl; trackers are sent the same steps again."""
        self.metrics.cut(position["metrics_bytes"])

    def _record(self, records: Sequence[Record]) -> None:
        self.metrics.write(list(records))
        self.trackers.log(list(records))
