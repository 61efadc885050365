"""Copy the pictures inside of a table once into a file of nothing but pictures, in the cache.

Columns are compressed in pages and groups of rows, and cannot be read one picture at a time. In
the copy the pictures lie one after the other, then come the positions where each begins.
"""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
import numpy.typing as npt

from trainer.base.errors import UserError
from trainer.base.files import remove_leftovers, write_file
from trainer.data.pictures.file_states import STATE_DIGITS, state_key
from trainer.data.sources import arrow_arrays
from trainer.data.sources.arrow_file import ArrowFile
from trainer.data.stored import entries

if TYPE_CHECKING:
    import pyarrow as pa

SUFFIX = ".pictures"

_FORMAT = 1
_ROWS_AT_ONCE = 64
"""whose pictures are in memory together"""
_COUNT = struct.Struct("<q")
"""the last bytes of a copy: how many pictures it has"""


def is_copied(table: Path, column: str, folder: Path) -> bool:
    """Return whether there is a copy of a table's pictures; arguments as of `copy_pictures`."""
    return _copy_of(table, column, folder).is_file()


def copy_pictures(table: Path, column: str, folder: Path) -> tuple[Path, npt.NDArray[np.int64]]:
    """Return the copy of a table's pictures, which is made if it is not there.

    One process at a time may do it.

    Args:
        table: a file of columns.
        column: of bytes, of structs with `bytes`, or of lists of numbers.
        folder: of the copies, an entry of the cache that this process holds.

    Returns:
        The copy, and where in it each picture begins; the last number is where the last one ends.

    Raises:
        UserError: the table is damaged, has a row without a picture or with an array that is none,
            or was changed meanwhile.
        OSError: the copy cannot be written.
    """
    copy = _copy_of(table, column, folder)
    if not copy.is_file():
        remove_leftovers(copy)
        entries.remove_superseded(copy, copy.stem[:-STATE_DIGITS])

        def write(path: Path) -> None:
            with path.open("wb") as file:
                begins = _write_pictures(file, table, column)
                file.write(begins.astype("<i8").data)
                file.write(_COUNT.pack(len(begins) - 1))
            if _copy_of(table, column, folder) != copy:
                raise UserError(f"{table}: was changed while it was read; start again")

        write_file(copy, write)
    return copy, _read_begins(copy)


def _write_pictures(file: BinaryIO, table: Path, column: str) -> npt.NDArray[np.int64]:
    """Write the pictures one after the other; return where each begins, and the last one ends."""
    opened = ArrowFile(table)
    sizes = [np.zeros(1, dtype=np.int64)]
    row = 0
    for batch in opened.iter_batches([column], _ROWS_AT_ONCE):
        pictures = batch.column(column)
        if arrow_arrays.are_images(pictures.type):
            pictures = arrow_arrays.files_of(pictures, table, column, row)
        pictures = bytes_of(pictures)
        if pictures.null_count:
            lacking = np.flatnonzero(pictures.is_null().to_numpy(zero_copy_only=False))[0]
            raise UserError(f"{table}, row {row + lacking} (from 0): has no picture")
        if len(pictures):
            _, offsets, content = pictures.buffers()
            end = pictures.offset + len(pictures) + 1
            bounds = np.frombuffer(offsets, dtype=np.int64)[pictures.offset : end]
            file.write(memoryview(content or b"")[bounds[0] : bounds[-1]])
            sizes.append(np.diff(bounds))
            row += len(pictures)
    return np.cumsum(np.concatenate(sizes))


def bytes_of(pictures: pa.Array) -> pa.Array:
    """Return a column of pictures as arrays of bytes, with offsets of 64 bits."""
    import pyarrow as pa
    from pyarrow import compute

    if pa.types.is_struct(pictures.type):
        pictures = compute.struct_field(pictures, ["bytes"])
    return pictures.cast(pa.large_binary())


def _read_begins(copy: Path) -> npt.NDArray[np.int64]:
    with copy.open("rb") as file:
        size_bytes = file.seek(-_COUNT.size, os.SEEK_END) + _COUNT.size
        (count,) = _COUNT.unpack(file.read())
        index_bytes = 8 * (count + 1)
        file.seek(size_bytes - _COUNT.size - index_bytes)
        return np.frombuffer(file.read(index_bytes), dtype="<i8").astype(np.int64)


def _copy_of(table: Path, column: str, folder: Path) -> Path:
    """Return the file of the copy, whose name changes when the table changes."""
    return folder / f"{table.stem}-{state_key(table, _FORMAT, column)}{SUFFIX}"
