"""The parts of a run that can be computed again by themselves, and which of them to compute."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from trainer.base import seeding
from trainer.checkpoint.reading import Checkpoint
from trainer.config import stored_config
from trainer.config.run_status import read_status
from trainer.config.schema import RunConfig
from trainer.finished import receipts, run_record
from trainer.finished.recomputation import Plan
from trainer.finished.run_record import Position, RunRecord
from trainer.run.receipt import NAME, Receipt


@dataclass(frozen=True)
class Source:
    """What says how a run was: its folder, or its receipt alone."""

    path: Path
    config: RunConfig
    receipt: Receipt | None
    """None: of an older version, or the run is not finished"""

    @property
    def receipt_path(self) -> Path:
        """Where the receipt is, if there is one."""
        return self.path if self.is_receipt else self.path / NAME

    @property
    def is_receipt(self) -> bool:
        """Whether nothing but the receipt is to be used, wherever it lies."""
        return not self.path.is_dir()


@dataclass(frozen=True)
class Segments:
    """A run between its checkpoints."""

    run: RunRecord
    stops: list[Checkpoint]
    end: Position
    contradictions: list[str]
    """between the receipt and the run's files, in words"""

    @property
    def ends(self) -> list[Position]:
        """Where each segment ends; the next one begins there."""
        ends = [run_record.position(saved) for saved in self.stops]
        return ends if ends and ends[-1][1] >= self.run.last_step else [*ends, self.end]

    def whole(self) -> Plan:
        """Plan to compute everything from the start."""
        return Plan(self.run, None, self.stops, self.end)

    def plan(self, number: int) -> Plan:
        """Plan to compute a segment, counted from 1."""
        starts: list[Checkpoint | None] = [None, *self.stops]
        own = self.stops[number - 1 : number]
        return Plan(self.run, starts[number - 1], own, self.ends[number - 1])


def open_source(path: Path, data_root: str | None = None) -> Source:
    """Read the configuration of a run, and its receipt if it has one; on any rank.

    Args:
        path: the run's folder, or a receipt.
        data_root: where the images are here, which a receipt does not say.

    Raises:
        UserError: there is no run, or a file is damaged.
        DifferentRunError: the receipt has been changed.
    """
    if path.is_file():
        receipt = receipts.read(path)
        return Source(path, receipts.configuration(receipt, path, data_root), receipt)
    config = stored_config.read_folder(path)
    # That of a run which goes on with more epochs is of fewer.
    issued = (path / NAME).exists() and read_status(path).state == "finished"
    return Source(path, config, receipts.read(path / NAME) if issued else None)


def read(source: Source) -> Segments:
    """Read what a run has recorded; on rank 0 only.

    Raises:
        UserError: a file is damaged, or the run is before its first step.
    """
    if source.is_receipt and source.receipt is not None:
        run = receipts.record_of(source.receipt, source.path)
        return Segments(run, [], run.end, [])
    run = run_record.read(source.path, source.receipt)
    stops = list(run_record.checkpoints(source.path, 1, run.last_step))
    end = max([run.end, *(run_record.position(saved) for saved in stops[-1:])])
    contradictions = receipts.find_contradictions(run, stops) if run.receipt else []
    return Segments(run, stops, end, contradictions)


def sample(count: int, size: int, seed: int) -> list[int]:
    """Draw segments: `size` of the numbers from 1 to `count`, or all, in rising order."""
    drawn = seeding.generator(seed, "segments").permutation(count)[:size]
    return sorted(int(number) + 1 for number in drawn)


def find_parting(chosen: Sequence[int], agrees: Callable[[int], bool]) -> int | None:
    """Look for a segment that differs right after one that agrees.

    The chosen ones are computed in turn. If one differs, those before it, down to the last that
    agreed, are halved again and again: whatever a run did differently from some segment on is found
    after a logarithm of the number of segments.

    Args:
        chosen: in rising order.
        agrees: computes a segment.

    Returns:
        None if all the chosen ones agree.
    """
    good = 0
    for number in chosen:
        if agrees(number):
            good = number
            continue
        bad = number
        while bad - good > 1:
            middle = (good + bad) // 2
            good, bad = (middle, bad) if agrees(middle) else (good, middle)
        return bad
    return None
