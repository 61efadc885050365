"""Writing whole files: afterwards either the old content or the new one is there, never half."""

from __future__ import annotations

import errno
import json
import os
import stat
import sys
from collections.abc import Callable
from io import BufferedReader, FileIO
from pathlib import Path
from typing import Any, Literal, cast, overload

# What a link, a pipe or a device in the place of a file would do is not to happen. Windows lacks
# the first two and needs the last.
_CAREFULLY = sum(getattr(os, name, 0) for name in ("O_NOFOLLOW", "O_NONBLOCK", "O_BINARY"))


@overload
def open_regular(path: Path) -> BufferedReader: ...
@overload
def open_regular(path: Path, mode: Literal["ab"]) -> FileIO: ...
def open_regular(path: Path, mode: Literal["rb", "ab"] = "rb") -> BufferedReader | FileIO:
    """Open a file that is a regular one itself, in a folder that others may have filled.

    What is appended is not buffered, so that a full disk shows at once and not when it is closed.

    Raises:
        OSError: it is missing, a link, a folder, a pipe, a device, or may not be opened.
    """
    if path.is_symlink():
        raise OSError(errno.ELOOP, "a link, and links are not followed", str(path))
    buffering = 0 if mode == "ab" else -1
    file = open(path, mode, buffering, opener=_open_carefully)  # noqa: SIM115 - the caller's
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise OSError(errno.EINVAL, "no regular file", str(path))
    return cast("BufferedReader | FileIO", file)


def _open_carefully(path: str, flags: int) -> int:
    return os.open(path, flags | _CAREFULLY, 0o666)


def write_file(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a temporary sibling of `path`, then put it in the place of `path`.

    The sibling's name starts with a dot and keeps the suffix, because some writers (numpy,
    matplotlib) choose the format by it. It is removed where `write` fails.
    """
    temporary = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        # A link that somebody left under this name must not be written through.
        temporary.unlink(missing_ok=True)
        temporary.touch(exist_ok=False)
        mode = temporary.stat().st_mode
        write(temporary)
        temporary.chmod(mode)  # safetensors leaves files that their owner alone may read
        sync(temporary)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync(path.parent)


def write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8 to `path`, whole or not at all."""
    write_file(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON to `path`, whole or not at all; NaN is an error."""
    write_text(path, to_json(value))


def to_json(value: Any) -> str:
    """The one way in which a file of ours holds `value` as JSON."""
    return json.dumps(value, indent=2, allow_nan=False) + "\n"


def sync(path: Path) -> None:
    """Flush a file or a folder to the disk, so that a power cut cannot take it back."""
    if sys.platform == "win32" and path.is_dir():
        return  # folders cannot be opened there
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
