"""Read IDX files, the format in which MNIST was published, and folders with a data set of four.

An IDX file is two zero bytes, a type, the number of dimensions, the size of each as a big-endian
32-bit integer, and then the values (Y. LeCun, C. Cortes, C. J. C. Burges: The MNIST database).
"""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedIOBase
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from trainer.base.errors import UserError
from trainer.data.raw_images import StoredImages, memory_limit_error, open_images
from trainer.data.sources.source_data import LabelledImages, SourceData

TRAIN = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte")
TEST = ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
NAMES = TRAIN + TEST

_GZIP_MAGIC = b"\x1f\x8b"
_PIECE_BYTES = 2**22
# Deflate can shrink 1,032 to 1 at most (zlib's technical details), so a header that announces
# more than that is wrong, and no memory is allocated for it.
DEFLATE_LIMIT = 1032

_TYPES = {"u1": 0x08, ">i4": 0x0C}
"""of values, as NumPy and as IDX files name them"""


def find(folder: Path, name: str) -> Path | None:
    """Return the file of this IDX name, unpacked or gzipped; None if the folder lacks it."""
    candidates = (folder / name, folder / f"{name}.gz")
    return next((path for path in candidates if path.is_file()), None)


def missing(folder: Path) -> list[str]:
    """Return which of the four names the folder lacks."""
    return [name for name in NAMES if find(folder, name) is None]


def locate(folder: Path, key: str) -> dict[str, Path]:
    """Find the four files of a folder, by name.

    Args:
        key: where the folder's name came from, for the message.

    Raises:
        UserError: names the files that are missing.
    """
    if absent := missing(folder):
        problem = f"lacks {', '.join(absent)}" if folder.is_dir() else "there is no such folder"
        raise UserError(
            f"{key}: {folder} {problem}; there must be the four files {', '.join(NAMES)}, "
            "each with or without .gz"
        )
    return {name: path for name in NAMES if (path := find(folder, name))}


def read_folder(folder: Path, limit_bytes: float = math.inf) -> SourceData:
    """Read any data set of four IDX files, in data.root.

    Args:
        limit_bytes: a file with more bytes of images stays on the disk.
    """
    paths = locate(folder, "data.root")
    train, test = (read_split(paths, names, limit_bytes) for names in (TRAIN, TEST))
    return SourceData(train, test, class_names=None, origin=f"data.root {folder}")


def read_split(
    paths: dict[str, Path], names: tuple[str, str], limit_bytes: float = math.inf
) -> LabelledImages:
    """Read the images and labels of one split."""
    images, labels = (paths[name] for name in names)
    return LabelledImages(
        images=read_images(images, limit_bytes),
        labels=read(labels, dimensions=1),
        images_file=str(images),
        labels_file=str(labels),
    )


def read(path: Path, dimensions: int, value_type: str = "u1") -> npt.NDArray[Any]:
    """Read the values of one IDX file.

    Whether it is gzipped is decided by its content, not by its name. Of a gzipped file no more
    than the announced number of bytes and one are unpacked.

    Args:
        dimensions: 3 for images, 1 for labels.
        value_type: u1 for unsigned bytes, or >i4 for integers of 32 bits.

    Raises:
        UserError: the file is not such an IDX file, or is damaged, too short or too long.
    """
    with _open(path) as (stream, packed):
        shape = read_shape(stream, path, dimensions, value_type)
        most_bytes = path.stat().st_size * (DEFLATE_LIMIT if packed else 1)
        return read_values(stream, path, shape, most_bytes, value_type)


def read_values(
    stream: BufferedIOBase,
    where: Path | str,
    shape: tuple[int, ...],
    most_bytes: int,
    value_type: str = "u1",
) -> npt.NDArray[Any]:
    """Read what follows after the header, which announces `shape`, to the end.

    Args:
        where: the file, for messages.
        most_bytes: that can follow; no memory is allocated for more.

    Raises:
        UserError: as `read`.
    """
    announced = math.prod(shape) * np.dtype(value_type).itemsize
    if announced > most_bytes:
        raise UserError(
            f"{where}: announces {announced} bytes in the shape {shape}, but is too short for "
            f"more than {most_bytes}: damaged or cut off"
        )
    # Piece by piece, as a read of everything would need the memory twice.
    content, count = bytearray(announced + 1), 0
    while piece := stream.readinto(memoryview(content)[count : count + _PIECE_BYTES]):
        count += piece
    if count < announced:
        raise UserError(f"{where}: cut off after {count} of {announced} bytes of {shape}")
    if count > announced:
        raise UserError(
            f"{where}: goes on after the {announced} bytes of {shape} that it announces"
        )
    return np.frombuffer(content, value_type, math.prod(shape)).reshape(shape)


def header(shape: tuple[int, ...]) -> bytes:
    """Return the header of an IDX file of unsigned bytes of this shape."""
    start = bytes((0, 0, _TYPES["u1"], len(shape)))
    return start + struct.pack(f">{len(shape)}I", *shape)


def read_images(path: Path, limit_bytes: float) -> npt.NDArray[np.uint8] | StoredImages:
    """Read images, with the channel axis that IDX leaves out; beyond the limit leave them there."""
    with _open(path) as (stream, packed):
        shape = read_shape(stream, path, dimensions=3)
    announced = math.prod(shape)
    if announced <= limit_bytes:
        return read(path, dimensions=3)[:, None]
    if packed:
        raise memory_limit_error(
            path, announced, limit_bytes, "are gzipped; unpack the file (gunzip)"
        )
    offset_bytes, size_bytes = len(header(shape)), path.stat().st_size
    if size_bytes != offset_bytes + announced:
        raise UserError(
            f"{path}: {size_bytes} bytes long, but its header announces {offset_bytes + announced}"
        )
    return open_images(path, offset_bytes, (*shape, 1))


@contextmanager
def _open(path: Path) -> Iterator[tuple[BufferedIOBase, bool]]:
    """Open a file, unpack it where needed, and tell whether it is gzipped."""
    try:
        with path.open("rb") as file:
            packed = file.read(2) == _GZIP_MAGIC
            file.seek(0)
            yield (gzip.GzipFile(fileobj=file) if packed else file), packed
    except (EOFError, zlib.error, OSError) as error:
        raise UserError(f"{path}: cannot be read, damaged or cut off ({error})") from error


def read_shape(
    stream: BufferedIOBase, where: Path | str, dimensions: int, value_type: str = "u1"
) -> tuple[int, ...]:
    """Read the header and return the sizes that it announces; arguments and errors as `read`."""
    start = stream.read(4)
    expected = bytes((0, 0, _TYPES[value_type], dimensions))
    if start != expected:
        kind = "images (3 dimensions)" if dimensions == 3 else f"labels (dimensions: {dimensions})"
        raise UserError(
            f"{where}: starts with {start.hex(' ') or 'nothing'}; an IDX file of {kind} starts "
            f"with {expected.hex(' ')}"
        )
    sizes = stream.read(4 * dimensions)
    if len(sizes) < 4 * dimensions:
        raise UserError(f"{where}: cut off in its header, after {4 + len(sizes)} bytes")
    return struct.unpack(f">{dimensions}I", sizes)
