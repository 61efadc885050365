"""Compare what a recomputation finds with what its run has recorded, up to the first difference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from trainer.base.strict_json import nan_to_null
from trainer.checkpoint.reading import Checkpoint
from trainer.finished.run_record import RunRecord
from trainer.network.model_state import same_bits
from trainer.run.receipt import marked_steps, records_sha256, step_marks
from trainer.training.observer import Record
from trainer.training.snapshot import Files
from trainer.training.state_digest import first_differing_mark

STEP_KEYS = ("lr", "loss")
EPOCH_KEYS = (
    "train_loss", "train_accuracy", "validation_loss", "validation_accuracy", "weights_sha256",
    "state_sha256",
)  # fmt: skip
TOLERANT_KEYS = ("lr", "loss", "train_loss", "validation_loss")
"""compared to a tolerance if there is one: digests cannot be near each other, accuracies jump"""

POSITION_KEYS = (
    "epoch", "step", "loss_sum", "hits", "trained_samples",
    "last_accuracy", "best_accuracy", "best_epoch", "best_step", "best_figure", "best_loss",
)  # fmt: skip
"""of a checkpoint's state.json: without its times and the length of metrics.jsonl"""


@dataclass
class Parting:
    """Where a recomputation and its run part, as far as is known."""

    epoch: int | None
    step: int | None
    """the first whose loss or rate differs"""
    tensor: str | None
    """the first, by its name, that differs in the checkpoint there"""
    after: str | None
    """what agreed before it; None: nothing was compared"""


class RecordComparison:
    """The observer that compares the figures of a recomputation with metrics.jsonl.

    Args:
        run: as it was.
        tolerance: relative, for losses; None: everything has to be equal.
        bar: tqdm's, moved on by each step.
    """

    def __init__(self, run: RunRecord, tolerance: float | None, bar: Any) -> None:
        self.run = run
        self.tolerance = tolerance
        self.bar = bar
        self.first_difference: str | None = None
        self.parted: Parting | None = None
        """where the first difference is"""
        self.agreed: str | None = None
        """what agreed last before it"""
        self.steps = 0
        """compared so far"""
        self.epochs = 0
        """compared so far"""
        self.largest = 0.0
        """relative difference of a loss"""
        self.last_step: Record = {}
        """the line of the step that was computed last"""

    def epoch_started(self, epoch: int, steps: int, done: int) -> None:
        """Do nothing: there is nothing to compare yet."""

    def steps_done(self, records: Sequence[Record], progress: Record) -> None:
        """Compare the steps since the last call."""
        for record in records:
            stored = self.run.steps.get(record["step"])
            where = f"step {record['step']} (epoch {record['epoch']})"
            self._compare(where, STEP_KEYS, record, stored, record["step"])
            self.last_step = record
        self.steps += len(records)
        self.bar.update(len(records))

    def epoch_done(self, record: Record) -> None:
        """Compare an epoch that was trained and validated."""
        stored = self.run.epochs.get(record["epoch"])
        self._compare(f"the end of epoch {record['epoch']}", EPOCH_KEYS, record, stored)
        self.epochs += 1

    def position(self) -> Record:
        """Return nothing to remember: no checkpoint is written."""
        return {}

    def sync(self) -> None:
        """Do nothing: nothing is written."""

    def go_back(self, position: Record) -> None:
        """Do nothing: there is no checkpoint to go back to."""

    def note(
        self,
        difference: str | None,
        *,
        epoch: int | None = None,
        step: int | None = None,
        tensor: str | None = None,
    ) -> None:
        """Remember a difference, in words, if it is the first, and where it is if that is known."""
        if difference is not None and self.first_difference is None:
            self.first_difference = difference
            self.parted = Parting(epoch, step, tensor, self.agreed)

    def note_agreement(self, what: str) -> None:
        """Remember that everything up to here agrees, unless something did not."""
        if self.first_difference is None:
            self.agreed = what

    def agrees(self, key: str, found: Any, stored: Any) -> bool:
        """Return whether a figure is the run's; what JSON has no number for is null there."""
        found, stored = nan_to_null(found), nan_to_null(stored)
        if self.tolerance is None or found == stored:
            return bool(found == stored)
        if key not in TOLERANT_KEYS:
            return True
        if found is None or stored is None:
            return False
        difference = abs(found - stored) / max(abs(found), abs(stored))
        self.largest = max(self.largest, difference)
        return bool(difference <= self.tolerance)

    def _compare(
        self,
        where: str,
        keys: Sequence[str],
        found: Record,
        stored: Record | None,
        step: int | None = None,
    ) -> None:
        place = {"epoch": found["epoch"], "step": step}
        if stored is None:
            self.note(f"{where} has no line in metrics.jsonl", **place)
            return
        for key in keys:
            if key == "state_sha256" and key not in stored:
                continue  # of an older version
            if not self.agrees(key, found[key], stored.get(key)):
                there, here = stored.get(key), nan_to_null(found[key])
                self.note(f"{where}: {key} {there} in the run, {here} here", **place)
        self.note_agreement(where)


class LinkComparison(RecordComparison):
    """The same with a receipt alone, whose links are of whole epochs."""

    def __init__(self, run: RunRecord, bar: Any) -> None:
        super().__init__(run, None, bar)
        self._steps: list[Record] = []
        self.tensor_number: int | None = None
        """of the first that differs, among all at the end of the epoch that does, from 0"""

    def steps_done(self, records: Sequence[Record], progress: Record) -> None:
        """Keep the steps until the end of their epoch."""
        self._steps += records
        self.steps += len(records)
        self.bar.update(len(records))

    def epoch_done(self, record: Record) -> None:
        """Compare an epoch that was trained and validated with its link."""
        assert self.run.receipt is not None
        epoch, link = record["epoch"], self.run.receipt["chain"][record["epoch"] - 1]
        found = {
            "step": self._steps[-1]["step"],
            "records_sha256": records_sha256(self._steps, record),
            "state_sha256": record["state_sha256"],
            "state_marks": record["state_marks"],
        }
        where = f"the end of epoch {epoch}"
        self._compare_steps(epoch, link["step_marks"])
        for key, here in found.items():
            if link[key] != here:
                self.note(f"{where}: {key} {link[key]} in the receipt, {here} here", epoch=epoch)
        if self.first_difference is not None:
            number = first_differing_mark(record["state_marks"], link["state_marks"])
            self.tensor_number = number
        self.note_agreement(where)
        self.epochs += 1
        self._steps = []

    def _compare_steps(self, epoch: int, marks: str) -> None:
        """Note the first step of an epoch that is not the receipt's."""
        number = first_differing_mark(step_marks(self._steps), marks)
        if number is None:
            return
        marked = marked_steps(len(self._steps))
        if number >= len(marked):
            self.note(f"epoch {epoch} has other steps in the receipt", epoch=epoch)
            return
        begin = marked[number - 1] + 1 if number else 0
        first, last = (self._steps[place]["step"] for place in (begin, marked[number]))
        if begin:
            self.note_agreement(f"step {first - 1} (epoch {epoch})")
        if first == last:
            text = f"step {first} (epoch {epoch}): not the loss or rate in the receipt"
            self.note(text, epoch=epoch, step=first)
        else:
            text = f"steps {first} to {last} (epoch {epoch}): not the losses in the receipt"
            self.note(text, epoch=epoch)


def checkpoint_difference(files: Files, small: Mapping[str, Any], saved: Checkpoint) -> str | None:
    """Say how what would be saved differs from a checkpoint; None if it does not.

    Args:
        files: tensors of each file, as `Snapshot.collect` gives them.
        small: the small values, likewise.
    """
    where = saved.folder.name
    for key in POSITION_KEYS:
        stored = saved.state["run"].get(key)  # older versions had not all
        if small["run"][key] != stored:
            return f"{where}: {key} {stored} in the run, {small['run'][key]} here"
    if tensor := differing_tensor(files, saved):
        return tensor
    for key in ("optimizer", "scaler"):
        if small[key] != saved.state[key]:
            return f"{where}: {key} in state.json"
    return None


def differing_tensor(files: Files, saved: Checkpoint) -> str | None:
    """Name the first tensor that is not as in a checkpoint; None if all are."""
    where = saved.folder.name
    for name, tensors in files.items():
        stored = saved.tensors(name)
        if tensors.keys() != stored.keys():
            return f"{where}: other tensors in {name}.safetensors"
        for key in sorted(tensors):
            if not same_bits(tensors[key], stored[key]):
                return f"{where}: {key} in {name}.safetensors"
    return None
