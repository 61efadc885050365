"""The index of a file of slots: which pictures have one, where it begins and how long it may be.

A row for each picture, sorted by the SHA-256 of its file; a picture keeps its slot when others
come.
"""

from __future__ import annotations

import os
import struct
from pathlib import Path

import numpy as np
import numpy.typing as npt

from trainer.base.files import write_file

INDEX, SLOTS = "index.npy", "slots.bin"
"""names of the two files, in an entry of the cache"""

HEAD = struct.Struct("<II")
"""of a slot: number of bytes, checksum; both 0 where nothing was written"""

Rows = npt.NDArray[np.void]
"""of an index, (n,): sha256, offset_bytes, most_bytes"""

_ROW = np.dtype([("sha256", "S32"), ("offset_bytes", "<i8"), ("most_bytes", "<i8")])


def read(entry: Path) -> Rows:
    """Return the rows of an index; if it is not whole, none, and remove the slots.

    They would belong to nobody. Who has their file open keeps it.
    """
    rows = load(entry)
    if not len(rows):
        (entry / SLOTS).unlink(missing_ok=True)
    return rows


def load(entry: Path) -> Rows:
    """Return the rows of an index; none where it, or the file of the slots, is not whole."""
    try:
        rows: Rows = np.load(entry / INDEX, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return np.empty(0, dtype=_ROW)
    is_whole = rows.dtype == _ROW and (entry / SLOTS).is_file()
    return rows if is_whole else np.empty(0, dtype=_ROW)


def find(rows: Rows, names: npt.NDArray[np.bytes_]) -> npt.NDArray[np.int64]:
    """Return the row of each name, -1 where there is none; the rows are sorted."""
    if not len(rows):
        return np.full(len(names), -1, dtype=np.int64)
    places = np.searchsorted(rows["sha256"], names).clip(max=len(rows) - 1)
    return np.where(rows["sha256"][places] == names, places, -1)


def with_more(
    rows: Rows,
    names: npt.NDArray[np.bytes_],
    most_bytes: npt.NDArray[np.int64],
) -> Rows:
    """Return rows with more behind their slots, of pictures of these SHA-256 and lengths."""
    distinct, first = np.unique(names, return_index=True)
    more = np.empty(len(distinct), dtype=_ROW)
    more["sha256"], more["most_bytes"] = distinct, most_bytes[first]
    begin = int((rows["offset_bytes"] + rows["most_bytes"]).max()) + HEAD.size if len(rows) else 0
    lengths = more["most_bytes"] + HEAD.size
    more["offset_bytes"] = begin + np.cumsum(lengths) - lengths
    both = np.concatenate([rows, more])
    return both[np.argsort(both["sha256"])]


def write(entry: Path, rows: Rows) -> None:
    """Write the index, and make the file of the slots as long as it says."""
    size_bytes = int((rows["offset_bytes"] + rows["most_bytes"]).max()) + HEAD.size
    descriptor = os.open(entry / SLOTS, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        os.ftruncate(descriptor, max(size_bytes, os.fstat(descriptor).st_size))
    finally:
        os.close(descriptor)

    def write_rows(path: Path) -> None:
        with path.open("wb") as file:
            np.lib.format.write_array(file, rows, allow_pickle=False)

    write_file(entry / INDEX, write_rows)


def has_needless(rows: Rows, found: npt.NDArray[np.int64]) -> bool:
    """Return whether most of the slots are of others than the rows that were found."""
    is_wanted = are_wanted(rows, found)
    return bool(2 * rows["most_bytes"][~is_wanted].sum() > rows["most_bytes"].sum())


def are_wanted(rows: Rows, found: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """Return which rows are among those that were found, by `find`."""
    is_wanted = np.zeros(len(rows), np.bool_)
    is_wanted[found[found >= 0]] = True
    return is_wanted
