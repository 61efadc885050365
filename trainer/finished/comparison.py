"""What is computed again against what a run's folder holds: exactly, or to a tolerance."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from trainer.checkpoint.reading import Checkpoint
from trainer.finished.run_record import RunRecord
from trainer.network.model_state import same_bits
from trainer.training.observer import Record
from trainer.training.snapshot import Files

STEP_KEYS = ("lr", "loss")
EPOCH_KEYS = (
    "train_loss",
    "train_accuracy",
    "validation_loss",
    "validation_accuracy",
    "weights_sha256",
)
JUDGED_KEYS = ("lr", "loss", "train_loss", "validation_loss")
"""what a tolerance judges: digests cannot be near each other, and accuracies jump"""

POSITION_KEYS = (
    "epoch", "step", "loss_sum", "hits", "trained_samples",
    "last_accuracy", "best_accuracy", "best_epoch", "best_step",
)  # fmt: skip
"""of a checkpoint's state.json: not its times, and not the length of metrics.jsonl"""


class Comparison:
    """The observer of a run that is computed again: holds its figures against metrics.jsonl.

    Args:
        run: as it was.
        tolerance: relative, for losses; None: everything has to be equal.
        bar: tqdm's, moved on by a step each.
    """

    def __init__(self, run: RunRecord, tolerance: float | None, bar: Any) -> None:
        self.run = run
        self.tolerance = tolerance
        self.bar = bar
        self.first_difference: str | None = None
        self.steps = 0
        """compared so far"""
        self.epochs = 0
        """compared so far"""
        self.largest = 0.0
        """relative difference of a loss"""
        self.last_step: Record = {}
        """the line of the step that was computed last"""

    def epoch_started(self, epoch: int, steps: int, done: int) -> None:
        """Nothing to compare yet."""

    def steps_done(self, records: Sequence[Record], progress: Record) -> None:
        """Steps since the last call."""
        for record in records:
            stored = self.run.steps.get(record["step"])
            where = f"step {record['step']} (epoch {record['epoch']})"
            self._compare(where, STEP_KEYS, record, stored)
            self.last_step = record
        self.steps += len(records)
        self.bar.update(len(records))

    def epoch_done(self, record: Record) -> None:
        """An epoch was trained and validated."""
        stored = self.run.epochs.get(record["epoch"])
        self._compare(f"the end of epoch {record['epoch']}", EPOCH_KEYS, record, stored)
        self.epochs += 1

    def position(self) -> Record:
        """Nothing has to be remembered: no checkpoint is written."""
        return {}

    def sync(self) -> None:
        """Nothing is written."""

    def go_back(self, position: Record) -> None:
        """Never: there is no checkpoint to go back to."""

    def note(self, difference: str | None) -> None:
        """Remember a difference, in words, if it is the first."""
        self.first_difference = self.first_difference or difference

    def agrees(self, key: str, found: Any, stored: Any) -> bool:
        """Whether a figure is what the run had; what JSON has no number for is null there."""
        found, stored = _as_json(found), _as_json(stored)
        if self.tolerance is None or found == stored:
            return bool(found == stored)
        if key not in JUDGED_KEYS:
            return True
        if found is None or stored is None:
            return False
        difference = abs(found - stored) / max(abs(found), abs(stored))
        self.largest = max(self.largest, difference)
        return bool(difference <= self.tolerance)

    def _compare(
        self, where: str, keys: Sequence[str], found: Record, stored: Record | None
    ) -> None:
        if stored is None:
            self.note(f"{where} has no line in metrics.jsonl")
            return
        for key in keys:
            if not self.agrees(key, found[key], stored.get(key)):
                self.note(
                    f"{where}: {key} {stored.get(key)} in the run, {_as_json(found[key])} here"
                )


def _as_json(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def checkpoint_difference(files: Files, small: Mapping[str, Any], saved: Checkpoint) -> str | None:
    """How what would be saved differs from a checkpoint, in words; None where it does not.

    Args:
        files: tensors of each file, as `Snapshot.collect` gives them.
        small: the small values, likewise.
        saved: the checkpoint.
    """
    where = saved.folder.name
    for key in POSITION_KEYS:
        if small["run"][key] != saved.state["run"][key]:
            return f"{where}: {key} {saved.state['run'][key]} in the run, {small['run'][key]} here"
    for name, tensors in files.items():
        stored = saved.tensors(name)
        if tensors.keys() != stored.keys():
            return f"{where}: other tensors in {name}.safetensors"
        for key in sorted(tensors):
            if not same_bits(tensors[key], stored[key]):
                return f"{where}: {key} in {name}.safetensors"
    for key in ("optimizer", "scaler"):
        if small[key] != saved.state[key]:
            return f"{where}: {key} in state.json"
    return None
