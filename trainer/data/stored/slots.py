"""Keep the stored bytes of pictures in one file that all processes of a machine share.

A folder, the entry, has an index and a file of slots. The index says, by the SHA-256 of a picture's
file, where its slot is, so that a new picture gets a new slot and the others keep theirs. A slot is
written when its picture is first decoded, by whichever process that is: first the bytes, then a
head with their number and a checksum of them and of the SHA-256. Its place is empty before, as the
file is sparse. A slot whose checksum does not fit, after a crash or while another process writes
it, counts as empty: the picture is decoded and the same bytes are written again.

A file on the disk is read, not mapped, for the reasons that `raw_images` gives.
"""

from __future__ import annotations

import logging
import math
import mmap
import os
import weakref
import zlib
from pathlib import Path

import numpy as np
import numpy.typing as npt

from trainer.base.files import remove_leftovers
from trainer.base.locks import lock_file
from trainer.data.stored import slot_index
from trainer.data.stored.form import Bytes
from trainer.data.stored.slot_index import HEAD, INDEX, SLOTS, Rows

log = logging.getLogger("lockstep")


class Slots:
    """The slots of some pictures.

    Args:
        path: their file.
        sha256: of the file of each picture, uint8 (n, 32).
        offset_bytes, most_bytes: where the slot of each picture begins and how long its bytes may
            be, int64 (n,).
        limit_bytes: of the disk, or of memory, that all slots may take.
        in_memory: whether the file is, and has its whole length: then it is mapped, and nothing is
            said when it is full.

    Raises:
        OSError: the file cannot be opened.
    """

    def __init__(
        self,
        path: Path,
        sha256: npt.NDArray[np.uint8],
        offset_bytes: npt.NDArray[np.int64],
        most_bytes: npt.NDArray[np.int64],
        limit_bytes: float = math.inf,
        *,
        in_memory: bool = False,
    ) -> None:
        self.path = path
        self.sha256 = sha256
        self.offset_bytes = offset_bytes
        self.most_bytes = most_bytes
        self.limit_bytes = limit_bytes
        self._lengths = np.zeros(len(offset_bytes), dtype=np.int64)
        """of the slots that this process has checked; 0: not yet"""
        self._descriptor = os.open(self.path, os.O_RDWR)
        self._has_failed = False
        weakref.finalize(self, os.close, self._descriptor)
        self._mapped: Bytes | None = None
        if in_memory:
            # Torch warns of memory that may not be written, though nothing writes to it.
            mapped = mmap.mmap(self._descriptor, 0)
            self._mapped = np.frombuffer(mapped, dtype=np.uint8)

    def read(self, number: int, begin: int = 0, end: int | None = None) -> Bytes | None:
        """Return the bytes of a picture, or some of them; None where they are not kept.

        Args:
            number: of the picture, in the order of the slots.
            begin, end: the bytes that are wanted; end None: to the last.
        """
        length = int(self._lengths[number])
        if length == 0:
            stored = self._read_checked(number)
            return None if stored is None else stored[begin:end]
        start = int(self.offset_bytes[number]) + HEAD.size
        if self._mapped is not None:
            return self._mapped[start : start + length][begin:end]
        wanted = np.empty((length if end is None else end) - begin, dtype=np.uint8)
        return wanted if self._fill(wanted, start + begin) else None

    def is_empty(self, number: int) -> bool:
        """Return whether nothing was ever written for a picture."""
        head = np.zeros(HEAD.size, dtype=np.uint8)
        self._fill(head, int(self.offset_bytes[number]))
        return not head.any()

    def _read_checked(self, number: int) -> Bytes | None:
        head = np.empty(HEAD.size, dtype=np.uint8)
        start = int(self.offset_bytes[number])
        if not self._fill(head, start):
            return None
        length, checksum = HEAD.unpack(head.data)
        if not 0 < length <= self.most_bytes[number]:
            return None
        stored = np.empty(length, dtype=np.uint8)
        if not self._fill(stored, start + HEAD.size) or checksum != self._sum(number, stored):
            return None
        self._lengths[number] = length
        return stored

    def _sum(self, number: int, stored: Bytes) -> int:
        return zlib.crc32(stored.data, zlib.crc32(self.sha256[number].data))

    def _fill(self, wanted: Bytes, begin: int) -> bool:
        """Fill an array from the file; return whether the file was long enough, and readable."""
        left = wanted.data
        try:
            while left and (count := os.preadv(self._descriptor, [left], begin)):
                left, begin = left[count:], begin + count
        except OSError as error:
            self._warn("read", error)
        return not left

    def write(self, number: int, stored: Bytes) -> None:
        """Keep the bytes of a picture; where that fails, as on a full disk, go on without."""
        start = int(self.offset_bytes[number])
        assert 0 < len(stored) <= self.most_bytes[number]
        if self._has_failed or not self._has_room(start, start + HEAD.size + len(stored)):
            return
        try:
            self._write(stored.data, start + HEAD.size)
            head = HEAD.pack(len(stored), self._sum(number, stored))
            self._write(memoryview(head), start)
        except OSError as error:
            self._warn("written", error)
            return
        self._lengths[number] = len(stored)

    def _has_room(self, start: int, end: int) -> bool:
        """Return whether bytes may be written, which take whole blocks of the disk."""
        status = os.fstat(self._descriptor)
        block_bytes = status.st_blksize
        more_bytes = (-(-end // block_bytes) - start // block_bytes) * block_bytes
        if status.st_blocks * 512 + more_bytes <= self.limit_bytes:
            return True
        self._give_up(
            f"the cache has the {self.limit_bytes / 1e9:,.2f} GB that it may have here by "
            "data.cache_limit_gb"
        )
        return False

    def _warn(self, what: str, error: OSError) -> None:
        self._give_up(f"cannot be {what} ({error.strerror or error})")

    def _give_up(self, why: str) -> None:
        """Say once that nothing more is written, which costs time only."""
        has_failed, self._has_failed = self._has_failed, True
        if self._mapped is None and not has_failed:
            log.warning(
                "%s: %s: pictures that are not in this cache yet are decoded each time they are "
                "needed; data.cache_dir names a folder elsewhere",
                self.path, why,
            )  # fmt: skip

    def _write(self, content: memoryview, begin: int) -> None:
        while content:
            count = os.pwrite(self._descriptor, content, begin)
            content, begin = content[count:], begin + count


def open_slots(
    entry: Path,
    sha256: npt.NDArray[np.uint8],
    most_bytes: npt.NDArray[np.int64],
    limit_bytes: float = math.inf,
    *,
    is_whole: bool = False,
) -> Slots:
    """Open the slots of pictures in an entry, a folder; it gets more slots where necessary.

    Args:
        sha256: of the bytes of each picture, uint8 (n, 32).
        most_bytes: that will be stored of each, int64 (n,).
        limit_bytes: of the disk, that the slots may take.
        is_whole: whether other pictures are of no more use: when they have more slots than these,
            the file is written anew without them. Who has the old one open keeps it.

    Raises:
        OSError: the entry cannot be written.
        UserError: the process that has its lock shows no sign of life.
    """
    names = np.ascontiguousarray(sha256).view("S32").ravel()
    without = "processes that start together may write into each other's slots, and decode again"
    with lock_file(entry / "lock", "adds pictures to this cache", without) as is_exclusive:
        if is_exclusive:
            remove_leftovers(entry / INDEX)
        rows = slot_index.read(entry)
        found = slot_index.find(rows, names)
        if is_whole and slot_index.has_needless(rows, found):
            rows = _without_others(entry, rows, found)
            found = slot_index.find(rows, names)
        if (found < 0).any():
            rows = slot_index.with_more(rows, names[found < 0], most_bytes[found < 0])
            slot_index.write(entry, rows)
            found = slot_index.find(rows, names)
        offset_bytes, most_bytes = rows["offset_bytes"][found], rows["most_bytes"][found]
        return Slots(entry / SLOTS, sha256, offset_bytes, most_bytes, limit_bytes)


def check(entry: Path) -> dict[str, int]:
    """Compare the checksums of an entry: how many pictures it has room for, kept and damaged."""
    rows = slot_index.load(entry)
    counts = {"pictures": len(rows), "kept": 0, "damaged": 0}
    if not len(rows):
        return counts
    slots = _slots_of(entry, rows)
    for number in range(len(rows)):
        if slots.read(number) is not None:
            counts["kept"] += 1
        elif not slots.is_empty(number):
            counts["damaged"] += 1
    return counts


def _slots_of(entry: Path, rows: Rows) -> Slots:
    sha256 = np.ascontiguousarray(rows["sha256"]).view(np.uint8).reshape(len(rows), 32)
    return Slots(entry / SLOTS, sha256, rows["offset_bytes"], rows["most_bytes"])


def _without_others(entry: Path, rows: Rows, found: npt.NDArray[np.int64]) -> Rows:
    """Return the rows that were found; the others go, with their slots."""
    is_wanted = slot_index.are_wanted(rows, found)
    old = _slots_of(entry, rows)
    kept = rows[:0]
    if is_wanted.any():
        kept = slot_index.with_more(kept, rows["sha256"][is_wanted], rows["most_bytes"][is_wanted])
    was = {name: number for number, name in enumerate(rows["sha256"].tolist())}
    # Without an index there are no slots: a kill leaves an empty entry.
    (entry / INDEX).unlink()
    (entry / SLOTS).unlink()
    if not len(kept):
        return kept
    slot_index.write(entry, kept)
    new = _slots_of(entry, kept)
    for number, name in enumerate(kept["sha256"].tolist()):
        stored = old.read(was[name])
        if stored is not None:
            new.write(number, stored)
    return kept
