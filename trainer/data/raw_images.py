"""Images that stay in their file and are read when a batch asks for them.

They are read, not mapped: the pages of a mapping count as this process's memory once they were
touched, and a file that is truncated under its mapping ends the process by SIGBUS (mmap(2)), where
a read that falls short becomes a message. Torch is imported only for a batch, because `trainer.api`
and users' files that import it do without.
"""

from __future__ import annotations

import math
import os
import weakref
import zlib
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from trainer.base.errors import RankError, UserError
from trainer.data.unread_images import Indices, UnreadImages, channels_first

if TYPE_CHECKING:
    import torch


class RawImageFile:
    """An open file of images of unsigned bytes, one after the other.

    It can still be read after its name was removed or given to another file. Both move the file's
    time of change, and so does rewriting it and restoring its old modification time. After such a
    move each image is compared with the checksum that it had when it was first read.

    Args:
        offset_bytes: where the first image begins.
        shape: (n, height, width, channels).
    """

    def __init__(self, path: Path, offset_bytes: int, shape: tuple[int, ...]) -> None:
        self.path = path
        self.offset_bytes = offset_bytes
        self.image_shape = shape[1:]
        self._descriptor = os.open(path, os.O_RDONLY)
        weakref.finalize(self, os.close, self._descriptor)
        self._version, self._changed_ns = self._read_version()
        self._checksums = np.zeros(shape[0], dtype=np.uint32)
        self._was_read = np.zeros(shape[0], dtype=bool)

    def read(self, positions: Indices) -> npt.NDArray[np.uint8]:
        """Read the images at these positions of the file: uint8 (len(positions), *image_shape).

        Raises:
            RankError: the file cannot be read, or was changed since it was opened.
        """
        pixels = np.empty((len(positions), math.prod(self.image_shape)), dtype=np.uint8)
        # Neighbours are read together: a run begins where a position is not the next one.
        begins = np.flatnonzero(np.diff(positions, prepend=-2) != 1).tolist()
        try:
            complete = all(
                self._read_run(pixels[begin:end], int(positions[begin]))
                for begin, end in pairwise([*begins, len(positions)])
            )
            version, changed_ns = self._read_version()
        except OSError as error:
            raise RankError(f"{self.path}: cannot be read any more ({error.strerror})") from error
        unchanged = complete and version == self._version
        if not unchanged or not self._check_images(positions, pixels, changed_ns):
            raise RankError(
                f"{self.path}: was changed during the run ({version[0]} bytes long, at first "
                f"{self._version[0]}); put the file back as it was and start again"
            )
        return pixels.reshape(len(positions), *self.image_shape)

    def _read_run(self, pixels: npt.NDArray[np.uint8], position: int) -> bool:
        """Fill an array with neighbouring images; return whether the file was long enough."""
        begin = self.offset_bytes + position * pixels.shape[1]
        left = pixels.data.cast("B")
        # One call reads 2 GiB at most, and may read less.
        while left and (count := os.preadv(self._descriptor, [left], begin)):
            left, begin = left[count:], begin + count
        return not left

    def _check_images(
        self, positions: Indices, pixels: npt.NDArray[np.uint8], changed_ns: int
    ) -> bool:
        """Return whether the images are what they were when they were first read."""
        read_before = self._was_read[positions]
        untouched = changed_ns == self._changed_ns
        if untouched and read_before.all():
            return True
        checksums = np.array([zlib.crc32(image) for image in pixels], dtype=np.uint32)
        if not untouched and (checksums != self._checksums[positions])[read_before].any():
            return False
        self._checksums[positions] = checksums
        self._was_read[positions] = True
        return True

    def _read_version(self) -> tuple[tuple[int, int], int]:
        """Return (size in bytes, modification time), and the time of the last change."""
        status = os.fstat(self._descriptor)
        return (status.st_size, status.st_mtime_ns), status.st_ctime_ns


@dataclass(frozen=True, eq=False)
class StoredImages(UnreadImages):
    """Images of a file."""

    file: RawImageFile

    @property
    def shape(self) -> tuple[int, ...]:
        """(n, channels, height, width)."""
        height, width, channels = self.file.image_shape
        return len(self.positions), channels, height, width

    def _read(self, positions: Indices) -> torch.Tensor:
        import torch

        return channels_first(torch.from_numpy(self.file.read(positions)))


def open_images(path: Path, offset_bytes: int, shape: tuple[int, ...]) -> StoredImages:
    """Open all images of a file of the shape (n, height, width, channels).

    Raises:
        UserError: the system cannot read at a position (Windows).
    """
    if not hasattr(os, "preadv"):
        raise UserError(
            f"data.memory_limit_mb: {path} is larger, and this system cannot leave it on the disk; "
            "raise the limit"
        )
    return StoredImages(np.arange(shape[0]), RawImageFile(path, offset_bytes, shape))


def memory_limit_error(path: Path, size_bytes: int, limit_bytes: float, problem: str) -> UserError:
    """Return the error for images that are too many for the memory and cannot stay in their file.

    Args:
        problem: why they cannot, and what to do about it.
    """
    return UserError(
        f"{path}: {size_bytes / 1e6:,.1f} MB of images are more than the {limit_bytes / 1e6:,.0f} "
        f"of data.memory_limit_mb, and {problem}; or raise data.memory_limit_mb"
    )
