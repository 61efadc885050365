"""Read from a run's folder what the run computed, and on what."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainer.base import numerics
from trainer.base.errors import FormatVersionError, UserError
from trainer.base.numerics import Environment
from trainer.base.strict_json import check_type
from trainer.checkpoint.reading import Checkpoint, open_checkpoint
from trainer.checkpoint.writing import step_folders, step_of
from trainer.config.run_status import read_status
from trainer.run.metrics_log import by_event, read_records
from trainer.run.receipt import Receipt
from trainer.run.run_folder import read_results
from trainer.training.observer import Record

Position = tuple[int, int]
"""an epoch, one more than the last where all are done, and the steps done in the whole run"""

log = logging.getLogger("lockstep")


@dataclass(frozen=True)
class RunRecord:
    """What a run has recorded, as far as it got."""

    folder: Path
    steps: dict[int, Record]
    """the lines of metrics.jsonl, by the step"""
    epochs: dict[int, Record]
    """and by the epoch"""
    results: dict[str, Any] | None
    """results.json, of a finished run"""
    receipt: Receipt | None = None
    """receipt.json, of a finished run that has one"""

    @property
    def last_step(self) -> int:
        """The last step with a line in metrics.jsonl."""
        return max(self.steps)

    @property
    def end(self) -> Position:
        """Where the run stands after the last line of its record."""
        epoch = self.steps[self.last_step]["epoch"]
        return (epoch + (epoch in self.epochs), self.last_step)

    @property
    def skipped_steps(self) -> list[int]:
        """Steps without a finite loss, after which the run has gone on without them.

        After the last step it has gone on where that step's epoch was ended.
        """
        return [
            step
            for step, record in self.steps.items()
            if record["loss"] is None and (step < self.last_step or record["epoch"] in self.epochs)
        ]


def read(folder: Path, receipt: Receipt | None = None) -> RunRecord:
    """Read the record of the run in a folder.

    Args:
        receipt: its own, where it has been read.

    Raises:
        UserError: there is no run, a file is damaged, or the run is before its first step.
    """
    lines = by_event(read_records(folder / "metrics.jsonl"))
    steps = {record["step"]: record for record in lines[0]}
    epochs = {record["epoch"]: record for record in lines[1]}
    if not steps:
        raise UserError(f"{folder}: its run is before step 1: there is nothing to compute again")
    return RunRecord(folder, steps, epochs, _results(folder), receipt)


def _results(folder: Path) -> dict[str, Any] | None:
    if read_status(folder).state != "finished":
        return None
    path = folder / "results.json"
    results = read_results(folder)
    check_type(results.get("environment"), Environment, f"{path}: environment")
    for key in ("data", "equality", "test"):
        check_type(results.get(key), dict[str, Any], f"{path}: {key}")
    check_type(results["equality"].get("because"), list[str], f"{path}: equality.because")
    check_type(results["data"].get("fingerprint"), str, f"{path}: data.fingerprint")
    return results


def are_images_of_run(
    folder: Path, fingerprint: str | None, test_fingerprint: str | None
) -> bool | None:
    """Return whether images are those that the run in a folder was made from.

    Args:
        fingerprint: of all images; None if no run can be made of them.
        test_fingerprint: of the test images; None if it is about others too.

    Returns:
        None where results.json does not say what the run was made from.

    Raises:
        UserError: the file is damaged.
    """
    path = folder / "results.json"
    if not path.exists():
        return None
    data = read_results(folder).get("data", {})
    check_type(data, dict[str, Any], f"{path}: data")
    for key in ("fingerprint", "test_fingerprint"):
        check_type(data.get(key), str | None, f"{path}: data.{key}")
    if test_fingerprint is not None and "test_fingerprint" in data:
        return bool(test_fingerprint == data["test_fingerprint"])
    return bool(fingerprint == data["fingerprint"]) if "fingerprint" in data else None


def as_recorded(found: Any, stored: Any) -> Any:
    """Return of figures that were computed again those that a run has recorded.

    An older version did not know all of them, nor all of a class.

    Args:
        found: as JSON has them.
        stored: the same in results.json.
    """
    if isinstance(found, dict) and isinstance(stored, dict):
        return {key: as_recorded(found[key], stored[key]) for key in stored if key in found}
    if isinstance(found, list) and isinstance(stored, list) and len(found) == len(stored):
        return [as_recorded(*pair) for pair in zip(found, stored, strict=True)]
    return found


# ---------------------------------------------------------------------- checkpoints


def checkpoints(
    folder: Path, first: int = 0, last: float = math.inf, *, newest_first: bool = False
) -> Iterator[Checkpoint]:
    """Open the undamaged checkpoints of steps `first` to `last`, one after the other.

    Raises:
        FormatVersionError: another version of Lockstep has written one.
    """
    paths = step_folders(folder / "checkpoints")
    for path in reversed(paths) if newest_first else paths:
        if not first <= step_of(path) <= last:
            continue
        try:
            saved = open_checkpoint(path)
            if position(saved)[1] != step_of(path):
                raise UserError(f"{path}: its state.json is of step {position(saved)[1]}")
            yield saved
        except FormatVersionError:
            raise
        except UserError as error:
            log.warning("skipped: %s", error)


def position(saved: Checkpoint | None) -> Position:
    """Return the position of a checkpoint, or of the start of a run."""
    if saved is None:
        return (1, 0)
    return saved.state["run"]["epoch"], saved.state["run"]["step"]


# ---------------------------------------------------------------------- what can be promised


def rounding_differences(
    run: RunRecord, start: Checkpoint | None, stops: Sequence[Checkpoint], here: Environment
) -> list[str]:
    """Say why steps of a run cannot be computed again in the same bits here; empty: they can.

    Args:
        start: where they begin; None: the start of the run.
        stops: the checkpoints on the way; later ones do not matter.
        here: what decides how numbers round in this process.
    """
    end = run.results is not None and (not stops or position(stops[-1])[1] == run.last_step)
    known = [(saved.state["environment"], saved.state["run"]["rounding"]) for saved in stops]
    if end and run.results:
        known.append((run.results["environment"], run.results["equality"]["because"]))
    if not known and start is not None:
        known = [(start.state["environment"], [])]
    if not known:
        return [f"nothing in {run.folder} says on what machine and by which versions it was made"]
    found: dict[str, None] = {}
    for there, _ in known:
        found.update(dict.fromkeys(numerics.differences(there, here)))
    before = start.state["run"]["rounding"] if start else []
    for note in known[-1][1]:
        moved = re.match(r"from step (\d+): ", note)
        if note not in before and not (moved and int(moved[1]) == position(start)[1]):
            found[note] = None
    return list(found)
