"""Tell whether pictures are still what they were when they were read.

Size and modification time are not enough: programs set that time (`tar`, `rsync`, `cp -p`), and
`mv` puts another file in the same place. No program sets the change time.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from trainer.data.pictures.packed_names import encode

States = npt.NDArray[np.int64]
"""of files: (n, 5), size in bytes, times of modification and of change in ns, inode and device"""

ABSENT = (-1, 0, 0, 0, 0)
"""the state of a file that is not there"""


def state_of(path: Path | os.DirEntry[str]) -> tuple[int, ...]:
    """Return the state of a file, or of what a link leads to: five numbers of 64 bits."""
    try:
        status = path.stat()
    except OSError:
        return ABSENT
    inode, device = status.st_ino, status.st_dev
    if inode >= 2**63 or device >= 2**63:  # they may be unsigned
        inode, device = _signed(inode), _signed(device)
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns, inode, device


def read_states(paths: Iterable[Path]) -> States:
    """Return the states of many files."""
    return np.array([state_of(path) for path in paths], dtype=np.int64).reshape(-1, len(ABSENT))


def hash_names(names: Sequence[str]) -> npt.NDArray[np.int64]:
    """Return a number for each name, int64 (n,); two names may have the same."""
    return np.fromiter(map(zlib.crc32, encode(names)), np.int64, len(names))


def _signed(number: int) -> int:
    return number - 2**64 if number >= 2**63 else number
