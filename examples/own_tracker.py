"""A tracker of your own: a class that follows a run, here into a table.

python train.py --config configs/digits.yaml --output_dir runs/own_tracker \
    --tracking.plugin examples/own_tracker.py:table
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from trainer.api import register_tracker


@register_tracker("table")
class Table:
    """Write epochs as tab-separated lines in the run's folder.

    A failure here costs one warning, never the training.
    """

    def __init__(self, config: dict[str, Any], folder: Path, step: int) -> None:
        """Start a run, or continue after `step`: records of later steps come again."""
        self.path = folder / "epochs.tsv"
        self.lines: dict[int, str] = {}
        if step and self.path.exists():
            lines = self.path.read_text(encoding="utf-8").splitlines(keepends=True)
            self.lines = {int(line.split("\t")[0]): line for line in lines}

    def log(self, record: dict[str, Any]) -> None:
        """Record a step, or an epoch, as in metrics.jsonl."""
        if record["event"] == "epoch":
            epoch = record["epoch"]
            self.lines[epoch] = (
                f"{epoch}\t{record['train_loss']}\t{record['validation_accuracy']}\n"
            )
            self.path.write_text("".join(self.lines.values()), encoding="utf-8")

    def finish(self, results: dict[str, Any] | None) -> None:
        """End the run, with the content of results.json, or None if it was not finished."""
