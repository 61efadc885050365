"""Following a run elsewhere than in its folder: Weights & Biases, TensorBoard, one's own.

A convenience: whatever goes wrong there costs one warning line and nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from trainer.config import command_line, plugins
from trainer.config.plugins import Plugin
from trainer.config.schema import RunConfig, flatten
from trainer.run.tracking import weights_and_biases
from trainer.run.tracking.attempts import Guarded, Tracker
from trainer.run.tracking.tensor_board import TensorBoardTracker
from trainer.run.tracking.user_tracker import OwnTrackerAdapter
from trainer.training.observer import Record


class Trackers:
    """All trackers of a run (rank 0 only): none until `start`."""

    def __init__(self) -> None:
        self._trackers: list[Tracker] = []
        self._own: Plugin | None = None

    def find(self, config: RunConfig) -> None:
        """Find the user's own, before anything is written.

        Raises:
            UserError: there is none of that name.
        """
        if config.tracking.plugin is not None:
            self._own = plugins.find("tracker", config.tracking.plugin)

    def start(self, config: RunConfig, output_dir: Path, run_id: str, step: int) -> None:
        """Begin to follow a run, or go on.

        Args:
            run_id: the run's at Weights & Biases, from `weights_and_biases.run_id`.
            step: after which it goes on; 0 at its start.
        """
        flat, keys = flatten(config), config.tracking
        wandb = weights_and_biases.follow(
            flat, output_dir, keys.wandb, keys.project, output_dir.name, run_id
        )
        if wandb is not None:
            self._trackers.append(wandb)
        if keys.tensorboard:
            text = command_line.to_yaml(config)
            self._trackers.append(
                Guarded("TensorBoard", lambda: TensorBoardTracker(output_dir, text, step))
            )
        own = self._own
        if own is not None:
            self._trackers.append(
                Guarded(
                    f"tracking.plugin {keys.plugin}",
                    lambda: OwnTrackerAdapter(own, flat, output_dir, step),
                )
            )

    def log(self, records: Sequence[Record]) -> None:
        """Hand on records of metrics.jsonl."""
        for tracker in self._trackers:
            tracker.log(records)

    def finish(
        self, results: dict[str, Any] | None, output_dir: Path, stopped: bool = False
    ) -> None:
        """End the following; see `Tracker.finish`."""
        while self._trackers:  # an interrupt ends one, and the others are still to be ended
            self._trackers.pop(0).finish(results, output_dir, stopped)
