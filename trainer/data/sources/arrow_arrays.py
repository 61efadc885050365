"""Read images that a column has as nested lists of numbers, as `datasets` keeps arrays.

Each becomes the bytes of a `.npy` file, and is a picture like any other from there on.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from trainer.base.errors import UserError

if TYPE_CHECKING:
    import pyarrow as pa

_LEVELS = (2, 3)
"""of lists: height and width, or height, width and channels"""


def is_list(kind: pa.DataType) -> bool:
    """Return whether values of a type are lists."""
    import pyarrow as pa

    types = pa.types
    return bool(types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind))


def are_images(kind: pa.DataType) -> bool:
    """Return whether values of a type are images: lists of lists of numbers, or one level more."""
    import pyarrow as pa

    levels = 0
    while is_list(kind):
        kind, levels = kind.value_type, levels + 1
    return levels in _LEVELS and bool(pa.types.is_integer(kind) or pa.types.is_floating(kind))


def files_of(column: pa.Array, table: Path, name: str, first: int) -> pa.Array:
    """Return the images of a column as the bytes of .npy files, with offsets of 64 bits.

    Args:
        column: of a type that `are_images`.
        table, name, first: of the column, and its first row in the table, for messages.

    Raises:
        UserError: an image is not rectangular, or has other values than whole numbers from 0 to
            255; names the row and the column.
    """
    import pyarrow as pa

    files = []
    for row in range(len(column)):
        try:
            files.append(_file_of(column.slice(row, 1)))
        except ValueError as error:
            where = f"{table}, row {first + row} (from 0)"
            raise UserError(
                f"{where}: the column {name} must be an image of (height, width) or (height, "
                f"width, channels), of whole numbers from 0 to 255; {error}"
            ) from error
    return pa.array(files, pa.large_binary())


def _file_of(image: pa.Array) -> bytes | None:
    """Return an image, the only value of an array, as a .npy file; None where it is null."""
    from pyarrow import compute

    if image.null_count:
        return None
    shape: list[int] = []
    while is_list(image.type):
        lengths = compute.list_value_length(image).unique().to_pylist()
        if len(lengths) != 1 or not lengths[0]:
            some = sorted(str(length) for length in lengths)
            raise ValueError(f"its lists have the lengths {', '.join(some[:5]) or 'of nothing'}")
        shape.append(lengths[0])
        image = image.flatten()
    if image.null_count:
        raise ValueError("some of its numbers are missing")
    values = image.to_numpy(zero_copy_only=False)
    with np.errstate(invalid="ignore"):  # of NaN and what is too large
        pixels = values.astype(np.uint8)
    if not np.array_equal(pixels, values):
        wrong = values[np.flatnonzero(pixels != values)[0]]
        raise ValueError(f"found {wrong}")
    file = io.BytesIO()
    np.lib.format.write_array(file, pixels.reshape(shape), allow_pickle=False)
    return file.getvalue()
