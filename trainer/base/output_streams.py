"""Standard output and standard error that outlast whoever reads them.

`command | head` closes the pipe when it has its lines, and a terminal goes away with its window.
Neither is a reason to lose a training, or to end with a traceback.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import sys
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

READER_GONE = (errno.EPIPE, errno.EIO)
"""nobody reads any more: a closed pipe, a terminal that has gone away"""
DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
"""the file that it goes to finds no room"""

_NAMES = {"stdout": "standard output", "stderr": "standard error"}


class _Screen(io.FileIO):
    """Writes to a descriptor, and drops what that does not take for one of some reasons."""

    def __init__(self, descriptor: int, what: str, dropped: Collection[int]) -> None:
        super().__init__(descriptor, "w", closefd=False)
        self._what = what
        self._dropped = dropped

    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except OSError as error:
            if error.errno not in self._dropped:
                raise OSError(error.errno, error.strerror, self._what) from error
            return len(data)


@contextlib.contextmanager
def ignore_write_errors(dropped: Collection[int] = READER_GONE) -> Iterator[None]:
    """Inside of this context, what is printed and cannot be written is dropped.

    Streams that are no files of the system, as in a notebook, stay as they are. What a stream
    cannot encode is written with a backslash.

    Args:
        dropped: the system's error codes for which it is, on standard output.
    """
    before = sys.stdout, sys.stderr
    sys.stdout = _outlasting("stdout", 1, dropped)
    sys.stderr = _outlasting(
        "stderr", 2, READER_GONE + DISK_FULL
    )  # there is nowhere else to say it
    try:
        yield
    finally:
        streams = sys.stdout, sys.stderr
        sys.stdout, sys.stderr = before
        for stream in streams:
            with contextlib.suppress(OSError):  # who prints flushes, and has met it there
                stream.flush()


def _outlasting(name: str, descriptor: int, dropped: Collection[int]) -> Any:
    stream = getattr(sys, name)
    if stream is None:  # started with a closed one
        return _nowhere(descriptor)
    try:
        descriptor = stream.fileno()
    except (OSError, AttributeError):
        return stream
    if not isinstance(stream, io.TextIOWrapper):
        return stream
    with contextlib.suppress(OSError):  # of what was printed before; it is no matter of ours
        stream.flush()
    return io.TextIOWrapper(
        io.BufferedWriter(_Screen(descriptor, _NAMES[name], dropped)),
        encoding=stream.encoding,
        errors="backslashreplace" if stream.errors == "strict" else stream.errors,
        line_buffering=stream.line_buffering or stream.write_through,
    )


def _nowhere(descriptor: int) -> io.TextIOBase:
    """A stream for nobody, and its number kept from the next file that is opened.

    Libraries that print to the number itself would write into that file.
    """
    nowhere = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115 - it stays open
    try:
        os.fstat(descriptor)
    except OSError:
        os.dup2(nowhere.fileno(), descriptor)
    return nowhere
