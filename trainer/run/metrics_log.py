"""metrics.jsonl, the record of a run that resuming and the report rely on."""

from __future__ import annotations

import json
import logging
import os
import threading
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

from trainer.base.errors import UserError
from trainer.base.files import sync
from trainer.base.strict_json import check_type, error_text, nan_to_null
from trainer.training.observer import Record

_LONGEST_LINE_BYTES = 2**20

_TYPES: dict[str, dict[str, Any]] = {
    "step": {"epoch": int, "step": int, "loss": float | None, "lr": float},
    "epoch": {
        "epoch": int,
        "train_loss": float | None,
        "train_accuracy": float | None,
        "validation_loss": float | None,
        "validation_accuracy": float | None,
        "validation_balanced_accuracy": float | None,
        "validation_macro_f1": float | None,
        "seconds": float | None,
    },
}
"""of the figures that are read back, by the event"""

_ADVICE = "put the file back as it was, or start again in another output_dir"

log = logging.getLogger("lockstep")


class MetricsLog:
    """Appends to metrics.jsonl, one JSON object a line.

    What a full disk does not take waits in memory and is tried again with the next lines; a
    checkpoint only counts once it is written.

    Args:
        path: the file; created if it is missing.
        length_bytes: its length at the checkpoint from which the run goes on, 0 for a new run; the
            rest is cut off.

    Raises:
        UserError: the file cannot be opened, is not a regular one, is shorter than `length_bytes`,
            or damaged before it.
    """

    def __init__(self, path: Path, length_bytes: int = 0) -> None:
        check_records(path, length_bytes)
        self._path = path
        try:
            # Unbuffered, so that a full disk shows at once and not when the file is closed.
            self._file = path.open("ab", buffering=0)
        except OSError as error:
            raise UserError(f"{path}: cannot be written ({error_text(error)})") from error
        # A thread that writes checkpoints syncs this file too.
        self._lock = threading.Lock()
        self.cut(length_bytes)

    @property
    def length_bytes(self) -> int:
        """The file's length once everything that was passed to `write` is on the disk."""
        with self._lock:
            return self._written_bytes + len(self._waiting)

    def write(self, records: Sequence[Record]) -> None:
        """Append the records, a line each; numbers that JSON lacks (NaN, infinity) become null."""
        lines = [json.dumps(nan_to_null(record), allow_nan=False) + "\n" for record in records]
        with self._lock:
            nothing_waited = not self._waiting
            self._waiting += "".join(lines).encode()
            try:
                self._write_out()
            except OSError as error:
                if nothing_waited:
                    log.warning("%s: %s; its lines wait in memory", self._path, error.strerror)

    def sync(self) -> None:
        """Bring everything to the disk.

        Raises:
            OSError: the disk is full or the like; a part is still in memory.
        """
        with self._lock:
            self._write_out()
        sync(self._path)

    def cut(self, length_bytes: int) -> None:
        """Drop what is in the file after `length_bytes`, and what waits."""
        with self._lock:
            self._file.truncate(length_bytes)
            self._written_bytes = length_bytes
            self._waiting = b""

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _write_out(self) -> None:
        while self._waiting:
            count = self._file.write(self._waiting)
            self._written_bytes += count
            self._waiting = self._waiting[count:]


def check_records(path: Path, length_bytes: int) -> None:
    """Check that the first `length_bytes` of a metrics.jsonl are whole records.

    Raises:
        UserError: they are not, or the file is shorter or not a regular file.
    """
    for _ in _read(path, length_bytes) if length_bytes else ():
        pass


def read_records(path: Path) -> Iterator[Record]:
    """Read the records of a metrics.jsonl, and check the types of their figures.

    A figure that is missing is None. What follows the last end of a line was being written when
    the run was killed, and is left out.

    Raises:
        UserError: the file is missing, damaged or not a regular file; or names the figure.
    """
    for record in _read(path):
        check_type(record["event"], Literal["step", "epoch"], f"{path}: event")
        for key, hint in _TYPES[record["event"]].items():
            check_type(record.setdefault(key, None), hint, f"{path}: {key}")
        yield record


def by_event(records: Iterable[Record]) -> tuple[list[Record], list[Record]]:
    """Return the records of the steps, and those of the epochs."""
    found: dict[str, list[Record]] = {"step": [], "epoch": []}
    for record in records:
        found[record["event"]].append(record)
    return found["step"], found["epoch"]


def _read(path: Path, length_bytes: int | None = None) -> Iterator[Record]:
    """Read records one after the other.

    Args:
        length_bytes: how much of the file; None: up to the last end of a line.
    """
    try:
        with path.open("rb") as file:
            left = os.fstat(file.fileno()).st_size
            if length_bytes is not None:
                if left < length_bytes:
                    raise UserError(
                        f"{path}: has {left} bytes, but had {length_bytes} when the checkpoint was "
                        f"saved; {_ADVICE}"
                    )
                left = length_bytes
            while left:
                line = file.readline(min(left, _LONGEST_LINE_BYTES))
                left -= len(line)
                if not line or (length_bytes is None and not left and not line.endswith(b"\n")):
                    return
                yield _parse(line, path)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error_text(error)}); {_ADVICE}") from error


def _parse(line: bytes, path: Path) -> Record:
    try:
        record = json.loads(line.decode("utf-8"))
        if not line.endswith(b"\n") or not isinstance(record, dict) or "event" not in record:
            raise ValueError("not an event")
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: damaged, a line is not a record ({error}); {_ADVICE}") from error
    return record
