"""List and remove what the cache of pictures has: an entry is a folder of decoded pictures.

Who uses an entry *holds* it, by a lock of the kernel that ends with the process; an entry that is
held is never removed. The time of its folder says when it was last used.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from trainer.config.schema import DataConfig
from trainer.data.sources.download import cache_folder
from trainer.data.stored.slots import SLOTS

_NAMES = re.compile(r"stored-[0-9a-f]{16}-[0-9a-f]{16}|[0-9a-f]{32}")
ABOUT = "about.txt"
"""in an entry says what it is of"""
_GOING = "going-"
"""begins the name of an entry that is being removed"""

_held: dict[Path, int] = {}
"""descriptors of the entries that this process holds; they stay open until it ends"""


@dataclass(frozen=True)
class Entry:
    """An entry of the cache.

    Args:
        path: its folder.
        kind: stored: pictures in their stored form, filled as they are needed; images: of one size.
        about: what it is of, in words.
        size_bytes: that it takes on the disk.
        used_s: when it was last used, in seconds since 1970.
        is_held: whether a process uses it now; None if the file system cannot say.
    """

    path: Path
    kind: Literal["stored", "images"]
    about: str
    size_bytes: int
    used_s: float
    is_held: bool | None


def folder_of(config: DataConfig) -> Path:
    """Return the folder of the cache of pictures: data.cache_dir, or the usual one."""
    return Path(config.cache_dir).expanduser() if config.cache_dir else cache_folder("folder")


def stored_name(root: Path, form_key: str) -> str:
    """Return the name of the entry for the pictures of a root in a stored form."""
    root_key = hashlib.sha256(os.fsencode(root.resolve())).hexdigest()[:16]
    return f"stored-{root_key}-{form_key}"


def hold(entry: Path) -> None:
    """Note that an entry is used now, and keep it until this process ends.

    Raises:
        OSError: there is no such folder.
    """
    if sys.platform != "win32" and entry not in _held:
        descriptor = os.open(entry, os.O_RDONLY)
        # It waits for whoever removes it, or looks whether it may.
        with contextlib.suppress(OSError):  # the file system has no locks, so nothing is removed
            _lock(descriptor, exclusive=False)
        if not entry.is_dir() or not os.path.samestat(os.fstat(descriptor), entry.stat()):
            os.close(descriptor)
            raise FileNotFoundError(errno.ENOENT, "was removed by another process", str(entry))
        _held[entry] = descriptor
    with contextlib.suppress(PermissionError):  # it belongs to somebody else
        os.utime(entry)


def list_entries(folder: Path) -> list[Entry]:
    """Return the entries of a cache, those that were used last at the end."""
    found = []
    with contextlib.suppress(FileNotFoundError):
        for path in folder.iterdir():
            if _NAMES.fullmatch(path.name) and path.is_dir():
                with contextlib.suppress(FileNotFoundError):  # another process removes it
                    found.append(_describe(path))
    return sorted(found, key=lambda entry: (entry.used_s, entry.path))


def prune(folder: Path, limit_bytes: float) -> list[Entry]:
    """Remove entries that were not used for longest until the others fit; return those removed.

    Entries that are held stay, and so do all of a file system without locks.
    """
    entries, removed = list_entries(folder), []
    size_bytes = sum(entry.size_bytes for entry in entries)
    for entry in entries:
        if size_bytes <= limit_bytes:
            break
        if remove(entry.path):
            removed.append(entry)
            size_bytes -= entry.size_bytes
    return removed


def remove(entry: Path) -> bool:
    """Remove an entry unless a process holds it; return whether it is gone."""
    try:
        descriptor = os.open(entry, os.O_RDONLY)
    except FileNotFoundError:
        return True
    try:
        if entry in _held or not _can_lock(descriptor):
            return False
        # In one step, so that nobody finds half of it.
        going = entry.with_name(f"{_GOING}{entry.name}-{os.getpid()}")
        entry.rename(going)
        shutil.rmtree(going)
    finally:
        os.close(descriptor)
    return True


def remove_leftovers(folder: Path) -> None:
    """Remove what processes that were killed while they removed an entry have left."""
    for path in folder.glob(f"{_GOING}*"):
        shutil.rmtree(path, ignore_errors=True)


def _describe(path: Path) -> Entry:
    size_bytes = sum(status.st_blocks * 512 for status in _files(path))
    kind: Literal["stored", "images"] = "stored" if (path / SLOTS).exists() else "images"
    about = "images of one size"
    if (path / ABOUT).exists():
        about = (path / ABOUT).read_text(encoding="utf-8").strip()
    return Entry(path, kind, about, size_bytes, path.stat().st_mtime, _is_held(path))


def _files(path: Path) -> Iterator[os.stat_result]:
    for file in path.rglob("*"):
        yield file.stat()


def _is_held(entry: Path) -> bool | None:
    if entry in _held:
        return True
    descriptor = os.open(entry, os.O_RDONLY)
    try:
        _lock(descriptor, exclusive=True)
    except BlockingIOError:
        return True
    except OSError:
        return None
    finally:
        os.close(descriptor)
    return False


def _can_lock(descriptor: int) -> bool:
    try:
        _lock(descriptor, exclusive=True)
    except OSError:  # it is held, or the file system has no locks
        return False
    return True


def _lock(descriptor: int, *, exclusive: bool) -> None:
    """Lock a folder, for this process alone now, or as soon as nobody has it alone.

    Raises:
        BlockingIOError: others have it.
        OSError: the file system has no locks of folders.
    """
    import fcntl

    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB if exclusive else fcntl.LOCK_SH)
