"""Choose where pictures are kept in their stored form: in memory, in a file, or nowhere."""

from __future__ import annotations

import contextlib
import shutil
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt

from trainer.config.schema import DataConfig
from trainer.data.stored import entries
from trainer.data.stored.form import Bytes
from trainer.data.stored.slot_index import HEAD
from trainer.data.stored.slots import Slots

Kind = Literal["memory", "disk", "none"]

_FREE_SHARE = 0.8
"""of the free space of a disk that pictures may take"""


class Keeper(Protocol):
    """Keeps the stored bytes of pictures, by their numbers; threads may call it."""

    def read(self, number: int, begin: int = 0, end: int | None = None) -> Bytes | None:
        """Return the bytes of a picture from `begin` to `end`; None where they are not kept."""

    def write(self, number: int, stored: Bytes) -> None:
        """Keep the bytes of a picture, if there is room."""


class InMemory:
    """Keeps pictures in memory, as many as fit: that of this process or, after `share`, of several.

    Args:
        limit_bytes: of all of them, for each process.
        sha256: of the file of each picture, uint8 (n, 32).
        most_bytes: that will be stored of each, int64 (n,).
    """

    def __init__(
        self,
        limit_bytes: float,
        sha256: npt.NDArray[np.uint8],
        most_bytes: npt.NDArray[np.int64],
    ) -> None:
        self._limit_bytes = self._left_bytes = limit_bytes
        self._sha256 = sha256
        self._most_bytes = most_bytes
        self._stored: dict[int, Bytes] = {}
        self._shared: Slots | None = None
        self._lock = threading.Lock()

    @property
    def size_bytes(self) -> int:
        """The length of a file that has room for all pictures."""
        return int((self._most_bytes + HEAD.size).sum())

    def share(self, file: Path, processes: int) -> None:
        """Keep the pictures together with other processes from now on, if the file can be opened.

        Args:
            file: in memory, of `size_bytes`.
            processes: how many share it.
        """
        slot_bytes = self._most_bytes + HEAD.size
        with contextlib.suppress(OSError):
            self._shared = Slots(
                file,
                self._sha256,
                slot_bytes.cumsum() - slot_bytes,
                self._most_bytes,
                self._limit_bytes * processes,
                in_memory=True,
            )
            for number, stored in self._stored.items():
                self.write(number, stored)
            self._stored.clear()

    def read(self, number: int, begin: int = 0, end: int | None = None) -> Bytes | None:
        """Return the bytes of a picture; None where they are not kept."""
        if self._shared is not None:
            return self._shared.read(number, begin, end)
        stored = self._stored.get(number)
        return None if stored is None else stored[begin:end]

    def write(self, number: int, stored: Bytes) -> None:
        """Keep the bytes of a picture, if there is room."""
        if self._shared is not None:
            if self._shared.is_empty(number):  # or another process was quicker
                self._shared.write(number, stored)
            return
        with self._lock:
            if number not in self._stored and stored.nbytes <= self._left_bytes:
                self._left_bytes -= stored.nbytes
                self._stored[number] = stored


class Nowhere:
    """Keeps nothing."""

    def read(self, number: int, begin: int = 0, end: int | None = None) -> None:
        """Return None."""

    def write(self, number: int, stored: Bytes) -> None:
        """Forget the bytes."""


@dataclass(frozen=True)
class Choice:
    """Where pictures are kept.

    Args:
        kind: as data.cache, without auto.
        reason: in words, for the header of a run.
    """

    kind: Kind
    reason: str

    def describe(self) -> str:
        """Return it in words."""
        where = {"memory": "kept in memory", "disk": "kept on the disk", "none": "not kept"}
        return f"{where[self.kind]} ({self.reason})"


def choose(config: DataConfig, size_bytes: int, limit_bytes: float, entry: Path) -> Choice:
    """Choose where pictures are kept; any choice gives the same bits.

    Args:
        size_bytes: that all of them take in their stored form.
        limit_bytes: of memory for them.
        entry: their folder in the cache on the disk, if they are kept there.

    Raises:
        OSError: the disk of the cache cannot be looked at.
    """
    size, limit = f"{size_bytes / 1e9:,.2f} GB", f"{limit_bytes / 1e9:,.2f} GB"
    if config.cache != "auto":
        return Choice(config.cache, f"{size}, as data.cache says")
    if size_bytes <= limit_bytes:
        return Choice("memory", f"{size} of at most {limit}")
    free_bytes = _FREE_SHARE * _free_bytes(entry)
    most_bytes = config.cache_limit_gb * 1e9
    if size_bytes <= min(free_bytes, most_bytes):
        return Choice("disk", f"{size}, more than the {limit} that memory has for them")
    room = f"the {most_bytes / 1e9:,.2f} GB of data.cache_limit_gb"
    if free_bytes < most_bytes:
        room = f"{_FREE_SHARE:.0%} of the free space in {entry.parent}"
    return Choice("none", f"{size}, more than {limit} of memory and {room}")


def _free_bytes(entry: Path) -> int:
    """Return the space that an entry may have: what is free on its disk, and what it has there."""
    folder = entry
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free + entries.size_of(entry)
