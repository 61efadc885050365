"""Write whole files: afterwards either the old content or the new one is there, never half."""

from __future__ import annotations

import errno
import glob
import hashlib
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any


def write_file(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a temporary sibling of `path`, then put it in the place of `path`.

    The sibling's name starts with a dot and keeps the suffix, because some writers (numpy,
    matplotlib) choose the format by it. It is removed where `write` fails.

    Raises:
        OSError: it cannot be written, or `path` is a device or a pipe, which would be replaced.
    """
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise FileExistsError(errno.EEXIST, "there is something that is no file", str(path))
    temporary = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        temporary.touch()
        mode = temporary.stat().st_mode
        write(temporary)
        temporary.chmod(mode)  # safetensors leaves files that only their owner may read
        sync(temporary)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync(path.parent)


def remove_leftovers(path: Path) -> None:
    """Remove what processes that were killed while they wrote `path` have left.

    Only where no other process may be writing it now.
    """
    for leftover in path.parent.glob(f".{glob.escape(path.stem)}.*{path.suffix}"):
        leftover.unlink()


def write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8 to `path`, whole or not at all.

    Names of files in it that are not UTF-8 keep their bytes.
    """
    content = text.encode(errors="surrogateescape")
    write_file(path, lambda temporary: temporary.write_bytes(content))


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON to `path`, whole or not at all; NaN is an error."""
    write_text(path, to_json(value))


def to_json(value: Any) -> str:
    """Return `value` as JSON, as all files have it."""
    return json.dumps(value, indent=2, allow_nan=False) + "\n"


def canonical_json(value: Any) -> bytes:
    """Return `value` as JSON whose bytes depend only on it, to be digested."""
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file, as `digest_of`."""
    return digest_of(path, "sha256")


def digest_of(path: Path, algorithm: str) -> str:
    """Return a digest of a file, hexadecimal; a large one is read piece by piece.

    Args:
        algorithm: sha256, or of published checksums md5 or sha1.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(
            file, lambda: hashlib.new(algorithm, usedforsecurity=False)
        ).hexdigest()


def sync(path: Path) -> None:
    """Flush a file or a folder to the disk, so that a power cut cannot take it back."""
    if sys.platform == "win32" and path.is_dir():
        return  # folders cannot be opened there
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
