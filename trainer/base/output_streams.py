"""Keep standard output and standard error usable after their reader has gone.

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
"""codes of a closed pipe and of a terminal that has gone away"""
DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
"""codes of a file for which there is no room"""

_NAMES = {"stdout": "standard output", "stderr": "standard error"}


class _Screen(io.FileIO):
    """Writes to a descriptor, and drops what fails with one of some error codes."""

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
    """Drop what is printed inside this context and cannot be written.

    Streams that are not files of the system, as in a notebook, stay as they are. What a stream
    cannot encode is written with a backslash.

    Args:
        dropped: the system's error codes to ignore on standard output.
    """
    before = sys.stdout, sys.stderr
    sys.stdout = _tolerant_stream("stdout", 1, dropped)
    sys.stderr = _tolerant_stream(
        "stderr", 2, READER_GONE + DISK_FULL
    )  # there is no other place to say it
    try:
        yield
    finally:
        streams = sys.stdout, sys.stderr
        sys.stdout, sys.stderr = before
        for stream in streams:
            with contextlib.suppress(OSError):  # met where it was printed
                stream.flush()


def _tolerant_stream(name: str, descriptor: int, dropped: Collection[int]) -> Any:
    stream = getattr(sys, name)
    if stream is None:  # started with a closed one
        return _null_stream(descriptor)
    try:
        descriptor = stream.fileno()
    except (OSError, AttributeError):
        return stream
    if not isinstance(stream, io.TextIOWrapper):
        return stream
    with contextlib.suppress(OSError):  # of what was printed before
        stream.flush()
    return io.TextIOWrapper(
        io.BufferedWriter(_Screen(descriptor, _NAMES[name], dropped)),
        encoding=stream.encoding,
        errors="backslashreplace" if stream.errors == "strict" else stream.errors,
        line_buffering=stream.line_buffering or stream.write_through,
    )


def _null_stream(descriptor: int) -> io.TextIOBase:
    """Return a stream that drops all, and keep its number from the next file that is opened.

    Libraries that print to the number itself would write into that file.
    """
    nowhere = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115 - it stays open
    try:
        os.fstat(descriptor)
    except OSError:
        os.dup2(nowhere.fileno(), descriptor)
    return nowhere
