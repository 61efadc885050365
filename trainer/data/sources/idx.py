"""IDX files, the format in which MNIST was published, and folders with the four of a data set.

An IDX file is two zero bytes, a type, the number of dimensions, the size of each as a big-endian
32-bit integer, and then the values (Y. LeCun, C. Cortes, C. J. C. Burges: The MNIST database).
"""

from __future__ import annotations

import io
import math
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from trainer.base.errors import UserError
from trainer.data.image_file import StoredImages, beyond_limit, store
from trainer.data.sources.source_data import LabelledImages, SourceData

TRAIN = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte")
TEST = ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
NAMES = TRAIN + TEST

_UNSIGNED_BYTE = 0x08
_GZIP_MAGIC = b"\x1f\x8b"
# For zlib: 31 is the format of gzip, with the largest window.
_GZIP_BITS = 31
_HEAD_BYTES = 2**16
# Of a packed file at a time, and of what comes out of it.
_PIECE_BYTES = 2**23
_MOST_BYTES = 2**26
# Deflate can shrink 1,032 to 1 at most (zlib's technical details), so that a header which
# announces more than that has lied; nothing is set aside or unpacked for it.
_DEFLATE_LIMIT = 1032
_LARGEST_BYTES = 2**32


def find(folder: Path, name: str) -> Path | None:
    """The file of this IDX name in the folder, unpacked or gzipped; None where there is none."""
    candidates = (folder / name, folder / f"{name}.gz")
    return next((path for path in candidates if path.is_file()), None)


def missing(folder: Path) -> list[str]:
    """Which of the four names the folder lacks."""
    return [name for name in NAMES if find(folder, name) is None]


def locate(folder: Path, key: str) -> dict[str, Path]:
    """The four files of a folder, by name.

    Args:
        key: where the folder's name came from, for the message.

    Raises:
        UserError: names the files that are not there.
    """
    found = {name: path for name in NAMES if (path := find(folder, name))}
    if len(found) < len(NAMES):
        absent = ", ".join(name for name in NAMES if name not in found)
        kind = "there is no such folder" if not folder.is_dir() else f"lacks {absent}"
        raise UserError(
            f"{key}: {folder} {kind}; there must be the four files {', '.join(NAMES)}, "
            "each with or without .gz"
        )
    return found


def read_folder(folder: Path, limit_bytes: float = math.inf) -> SourceData:
    """Any data set of four IDX files, in data.root.

    Args:
        limit_bytes: images of more stay in their file.
    """
    paths = locate(folder, "data.root")
    return SourceData(
        train=read_part(paths, TRAIN, limit_bytes),
        test=read_part(paths, TEST, limit_bytes),
        class_names=None,
        origin=f"data.root {folder}",
    )


def read_part(
    paths: dict[str, Path], names: tuple[str, str], limit_bytes: float = math.inf
) -> LabelledImages:
    """Images and labels of one part."""
    images, labels = (paths[name] for name in names)
    return LabelledImages(
        images=_read_images(images, limit_bytes),
        labels=read(labels, dimensions=1),
        images_file=str(images),
        labels_file=str(labels),
    )


def read(path: Path, dimensions: int) -> npt.NDArray[np.uint8]:
    """The values of one IDX file of unsigned bytes, gzipped or not.

    What decides is the content, never the name. At most the announced number of bytes and one more
    are unpacked.

    Args:
        dimensions: 3 for images, 1 for labels.

    Raises:
        UserError: the file is no such IDX file, is damaged, too short, too long or too large.
    """
    with _unpacked(path) as (stream, packed):
        limit_bytes = path.stat().st_size * (_DEFLATE_LIMIT if packed else 1)
        return _read_values(stream, path, dimensions, limit_bytes)


def header(shape: tuple[int, ...]) -> bytes:
    """The header of an IDX file of unsigned bytes of this shape."""
    start = bytes((0, 0, _UNSIGNED_BYTE, len(shape)))
    return start + struct.pack(f">{len(shape)}I", *shape)


def _read_images(path: Path, limit_bytes: float) -> npt.NDArray[np.uint8] | StoredImages:
    """Images with the channel axis that IDX leaves out, beyond the limit in their file."""
    with _unpacked(path) as (stream, packed):
        shape = _read_shape(stream, path, dimensions=3)
    announced = math.prod(shape)
    if announced <= limit_bytes:
        return read(path, dimensions=3)[:, None]
    if packed:
        raise beyond_limit(path, announced, limit_bytes, "are gzipped; unpack the file (gunzip)")
    offset_bytes, size_bytes = len(header(shape)), path.stat().st_size
    if size_bytes != offset_bytes + announced:
        raise UserError(
            f"{path}: {size_bytes} bytes long, but its header announces {offset_bytes + announced}"
        )
    return store(path, offset_bytes, (*shape, 1))


class _GzipReader(io.RawIOBase):
    """The content of a gzip file, unpacked in few large calls during which other threads run.

    GzipFile makes thousands, after each of which it may have to wait for its turn.
    """

    def __init__(self, file: io.BufferedReader) -> None:
        self._file = file
        self._member = zlib.decompressobj(wbits=_GZIP_BITS)
        self._packed = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer, whatever can be written as bytes, as far as one call goes; 0 at the end.

        Raises:
            EOFError: the file is cut off.
            zlib.error: it is damaged, or goes on with something else.
        """
        view = memoryview(buffer)
        # Whoever wants only a header is not to have more of the file read.
        size = _HEAD_BYTES if len(view) < _HEAD_BYTES else _PIECE_BYTES
        while True:
            self._packed = self._packed or self._file.read(size)
            if self._member.eof:  # a file may have several members, and zeros to fill it up
                if not self._packed:
                    return 0
                self._packed = self._packed.lstrip(b"\0")
                if self._packed:
                    self._member = zlib.decompressobj(wbits=_GZIP_BITS)
                continue
            if not self._packed:
                raise EOFError("the compressed data end too early")
            values = self._member.decompress(self._packed, min(len(view), _MOST_BYTES))
            self._packed = self._member.unconsumed_tail or self._member.unused_data
            if values:
                view[: len(values)] = values
                return len(values)


@contextmanager
def _unpacked(path: Path) -> Iterator[tuple[io.BufferedIOBase, bool]]:
    """The content of a file, unpacked where need be, and whether it is packed."""
    try:
        with path.open("rb") as file:
            packed = file.read(2) == _GZIP_MAGIC
            file.seek(0)
            if not packed:
                yield file, False
                return
            with io.BufferedReader(_GzipReader(file)) as stream:
                yield stream, True
    except (EOFError, zlib.error, OSError) as error:
        raise UserError(f"{path}: cannot be read, damaged or cut off ({error})") from error


def _read_values(
    stream: io.BufferedIOBase, path: Path, dimensions: int, limit_bytes: int
) -> npt.NDArray[np.uint8]:
    """Header and values. No more than `limit_bytes` can be in the file, whatever it announces."""
    shape = _read_shape(stream, path, dimensions)
    announced = math.prod(shape)
    if announced > min(limit_bytes, _LARGEST_BYTES):
        raise UserError(
            f"{path}: announces {announced} bytes in the shape {shape}; the file can hold "
            f"{limit_bytes} at most, and {_LARGEST_BYTES} are the most that one may have"
        )
    values = np.empty(announced, dtype=np.uint8)
    view = values.data
    read_bytes = 0
    while read_bytes < announced and (count := stream.readinto(view[read_bytes:])):
        read_bytes += count
    if read_bytes < announced:
        raise UserError(f"{path}: cut off after {read_bytes} of {announced} bytes of {shape}")
    if stream.read(1):
        raise UserError(f"{path}: goes on after the {announced} bytes of {shape} that it announces")
    return values.reshape(shape)


def _read_shape(stream: io.BufferedIOBase, path: Path, dimensions: int) -> tuple[int, ...]:
    start = stream.read(4)
    expected = bytes((0, 0, _UNSIGNED_BYTE, dimensions))
    if start != expected:
        kind = "images (3 dimensions)" if dimensions == 3 else "labels (1 dimension)"
        raise UserError(
            f"{path}: starts with {start.hex(' ') or 'nothing'}; an IDX file of {kind} starts with "
            f"{expected.hex(' ')}"
        )
    sizes = stream.read(4 * dimensions)
    if len(sizes) < 4 * dimensions:
        raise UserError(f"{path}: cut off in its header, after {4 + len(sizes)} bytes")
    return struct.unpack(f">{dimensions}I", sizes)
