"""Tell whether pictures are still what they were when they were read.

Size and modification time are not enough: programs set that time (`tar`, `rsync`, `cp -p`), and
`mv` puts another file in the same place. No program sets the change time.
"""

from __future__ import annotations

import hashlib
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

CLOCK_STEP_NS = 2 * 10**9
"""some file systems count times in whole seconds, or in steps of two"""

STATE_DIGITS = 16
"""at the end of what `state_key` gives, which change when the file does"""


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


def is_settled(state: Sequence[int], at_ns: int) -> bool:
    """Return whether a change after a moment shows in a state that was read then.

    It might not if the file's last change came within the same tick of its clock.
    """
    _, modified_ns, changed_ns, *_ = state
    return max(modified_ns, changed_ns) + CLOCK_STEP_NS < at_ns


def state_key(path: Path, form: int, *more: object) -> str:
    """Name what is made of a file in its present state, for the cache: 24 hexadecimal digits.

    Args:
        form: the version of what is made.
        more: what else decides on it.
    """
    of_path = repr((form, os.fsencode(path.resolve()), *more))
    digests = (hashlib.sha256(text.encode()) for text in (of_path, of_path + repr(state_of(path))))
    any_state, state = (digest.hexdigest() for digest in digests)
    return any_state[:8] + state[:STATE_DIGITS]


def read_states(paths: Iterable[Path]) -> States:
    """Return the states of many files."""
    return np.array([state_of(path) for path in paths], dtype=np.int64).reshape(-1, len(ABSENT))


def hash_names(names: Sequence[str]) -> npt.NDArray[np.int64]:
    """Return a number for each name, int64 (n,); two names may have the same."""
    return np.fromiter(map(zlib.crc32, encode(names)), np.int64, len(names))


def _signed(number: int) -> int:
    return number - 2**64 if number >= 2**63 else number
