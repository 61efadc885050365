"""Images that stay in their file and are read when they are asked for.

Read, not mapped: the pages of a mapping count as this process's memory once they were touched, and
a file that is cut off under its mapping ends the process by SIGBUS (mmap(2)); a read that falls
short can be named. Torch is imported only when a batch is asked for: what reads the files does so
while torch is still being imported.
"""

from __future__ import annotations

import math
import os
import weakref
import zlib
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from trainer.base.errors import RankError, UserError

if TYPE_CHECKING:
    import torch

Indices = npt.NDArray[np.int64]


class ImageFile:
    """An open file of images of unsigned bytes, one after the other.

    It stays readable where its name is taken away or given to another file. An image is taken to be
    what it was when it was first read, which is checked once the file's time of change moves: that
    is all that a rewritten file with its old time of modification shows, and so does a renamed one.

    Args:
        offset_bytes: where the first image begins.
        shape: (n, height, width, channels), all of which the file is known to hold.
    """

    def __init__(self, path: Path, offset_bytes: int, shape: tuple[int, ...]) -> None:
        self.path = path
        self.offset_bytes = offset_bytes
        self.image_shape = shape[1:]
        self._descriptor = os.open(path, os.O_RDONLY)
        weakref.finalize(self, os.close, self._descriptor)
        self._version, self._changed_ns = self._look()
        self._checksums = np.zeros(shape[0], dtype=np.uint32)
        self._was_read = np.zeros(shape[0], dtype=bool)

    def read(self, positions: Indices) -> npt.NDArray[np.uint8]:
        """The images at these positions of the file: uint8 (len(positions), *image_shape).

        Raises:
            RankError: the file cannot be read any more, or is another than when it was opened.
        """
        pixels = np.empty((len(positions), math.prod(self.image_shape)), dtype=np.uint8)
        # Neighbours are read together: a run begins where a position is not the next one.
        begins = np.flatnonzero(np.diff(positions, prepend=-2) != 1).tolist()
        try:
            whole = all(
                self._read_run(pixels[begin:end], int(positions[begin]))
                for begin, end in pairwise([*begins, len(positions)])
            )
            version, changed_ns = self._look()
        except OSError as error:
            raise RankError(f"{self.path}: cannot be read any more ({error.strerror})") from error
        same = whole and version == self._version
        if not same or not self._are_as_before(positions, pixels, changed_ns):
            raise RankError(
                f"{self.path}: was changed during the run ({version[0]} bytes long, at first "
                f"{self._version[0]}); put the file back as it was and start again"
            )
        return pixels.reshape(len(positions), *self.image_shape)

    def _read_run(self, pixels: npt.NDArray[np.uint8], position: int) -> bool:
        """Fill an array with neighbouring images; whether the file goes on so far."""
        place = self.offset_bytes + position * pixels.shape[1]
        left = pixels.data.cast("B")
        # One call reads 2 GiB at most, and may read less.
        while left and (count := os.preadv(self._descriptor, [left], place)):
            left, place = left[count:], place + count
        return not left

    def _are_as_before(
        self, positions: Indices, pixels: npt.NDArray[np.uint8], changed_ns: int
    ) -> bool:
        """Whether images are what they were when they were first read, as far as they were."""
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

    def _look(self) -> tuple[tuple[int, int], int]:
        """Size in bytes and time of the last modification; and the time of the last change."""
        status = os.fstat(self._descriptor)
        return (status.st_size, status.st_mtime_ns), status.st_ctime_ns


@dataclass(frozen=True, eq=False)
class StoredImages:
    """Images of a file, in any order; has what a tensor of them has where a set is concerned.

    Args:
        file: where they are.
        positions: which of the file's, int64 (n,).
    """

    file: ImageFile
    positions: Indices

    @property
    def shape(self) -> tuple[int, ...]:
        """(n, channels, height, width)."""
        height, width, channels = self.file.image_shape
        return len(self.positions), channels, height, width

    @property
    def nbytes(self) -> int:
        """What they take in memory."""
        return self.positions.nbytes

    @property
    def device(self) -> torch.device:
        """Where a batch of them is read to."""
        import torch

        return torch.device("cpu")

    def __len__(self) -> int:
        return len(self.positions)

    def __getitem__(self, chosen: slice) -> torch.Tensor:
        """Reads neighbouring images: uint8 (n, channels, height, width), contiguous."""
        return self._read(self.positions[chosen])

    def index_select(self, dim: int, index: torch.Tensor) -> torch.Tensor:
        """Reads some images; `dim` is 0."""
        return self._read(self.positions[index.numpy()])

    def _read(self, positions: Indices) -> torch.Tensor:
        import torch

        pixels = torch.from_numpy(self.file.read(positions)).permute(0, 3, 1, 2)
        # A single channel leaves the strides open, and torch takes one choice for channels_last.
        return pixels.flatten().view(pixels.shape)

    def to(self, device: torch.device | str) -> StoredImages:
        """Itself: the images stay where they are on any device."""
        return self

    def select(self, positions: Indices) -> StoredImages:
        """Some of the images, without reading them."""
        return replace(self, positions=self.positions[positions])


def store(path: Path, offset_bytes: int, shape: tuple[int, ...]) -> StoredImages:
    """All images of a file of the shape (n, height, width, channels).

    Raises:
        UserError: the system lacks reads at a place (Windows).
    """
    if not hasattr(os, "preadv"):
        raise UserError(
            f"data.memory_limit_mb: {path} is beyond it, and this system cannot leave it on the "
            "disk; raise the limit"
        )
    return StoredImages(ImageFile(path, offset_bytes, shape), np.arange(shape[0]))


def beyond_limit(path: Path, size_bytes: int, limit_bytes: float, problem: str) -> UserError:
    """Return the error for images that are too many for the memory and cannot stay in their file.

    Args:
        problem: why they cannot, and what to do about it.
    """
    return UserError(
        f"{path}: {size_bytes / 1e6:,.1f} MB of images are more than the {limit_bytes / 1e6:,.0f} "
        f"of data.memory_limit_mb, and {problem}; or raise data.memory_limit_mb"
    )
