"""List and remove what the cache of pictures has, in entries: an entry is a folder.

It has decoded pictures of one root, what was noted of them, a copy of archives or tables that can
be read at random, or a download. Who uses an entry *holds* it, by a lock of the kernel that ends
with the process; an entry that is held is never removed. The time of its folder says when it was
last used.
"""

from __future__ import annotations

import contextlib
import errno
import glob
import hashlib
import os
import re
import shutil
import stat
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from trainer.config.schema import DataConfig
from trainer.data.sources.download import cache_folder

Kind = Literal["stored", "images", "notes", "archives", "tables", "remote"]

_NAMES = re.compile(r"(stored)-[0-9a-f]{16}-[0-9a-f]{16}|(notes)-[0-9a-f]{16}|[0-9a-f]{32}")
_OTHERS: tuple[Kind, ...] = ("archives", "tables", "remote")
"""folders beside the usual one of pictures"""
_OTHER_NAMES = re.compile(r"(.*-)?[0-9a-f]{16}")
ABOUT = "about.txt"
"""in an entry says what it is of"""
_HALF_IMAGES = re.compile(r"\.[0-9a-f]{32}\..+\.\d+")
"""names of entries while they are filled"""
_ABANDONED_AFTER_S = 24 * 3600.0
_GOING = "going-"
"""begins the name of an entry that is being removed"""

_held: dict[Path, int] = {}
"""descriptors of the entries that this process holds; they stay open until it ends"""
_were_unused: set[Path] = set()
"""those of them that nobody else held when this process began to"""


@dataclass(frozen=True)
class Entry:
    """An entry of the cache.

    Args:
        path: its folder.
        kind: stored: pictures in their stored form, filled as they are needed; images: of one
            size; notes: what pictures contain and become; archives, tables: pictures out of them;
            remote: downloads.
        about: what it is of, in words.
        size_bytes: that it takes on the disk.
        used_s: when it was last used, in seconds since 1970.
        is_held: whether a process uses it now; None if the file system cannot say.
    """

    path: Path
    kind: Kind
    about: str
    size_bytes: int
    used_s: float
    is_held: bool | None


def folder_of(config: DataConfig) -> Path:
    """Return the folder of the cache of pictures: data.cache_dir, or the usual one."""
    return Path(config.cache_dir).expanduser() if config.cache_dir else cache_folder("folder")


def name_of(kind: Kind, root: Path, more: str = "") -> str:
    """Return the name of the entry for what comes from a root."""
    key = hashlib.sha256(os.fsencode(os.path.realpath(root))).hexdigest()[:16]
    return "-".join(filter(None, (kind, key, more)))


def use(entry: Path, about: str) -> None:
    """Make an entry if it is not there, say what it is of, and hold it.

    Raises:
        OSError: it cannot be made.
    """
    while True:
        entry.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):  # it was removed meanwhile
            hold(entry)
            break
    content = f"{about}\n".encode(errors="surrogateescape")  # it may name folders of any bytes
    if not (file := entry / ABOUT).exists() or file.stat().st_size < len(content):
        # Only for people: half of it harms nobody. It may be somebody else's entry.
        with contextlib.suppress(PermissionError):
            file.write_bytes(content)


def hold(entry: Path) -> None:
    """Note that an entry is used now, and keep it until this process ends.

    Raises:
        OSError: there is no such folder.
    """
    if sys.platform != "win32" and entry not in _held:
        descriptor = os.open(entry, os.O_RDONLY)
        is_alone = _can_lock(descriptor)
        # It waits for whoever removes it, or looks whether it may.
        with contextlib.suppress(OSError):  # the file system has no locks, so nothing is removed
            _lock(descriptor, exclusive=False)
        if not entry.is_dir() or not os.path.samestat(os.fstat(descriptor), entry.stat()):
            os.close(descriptor)
            raise FileNotFoundError(errno.ENOENT, "was removed by another process", str(entry))
        _held[entry] = descriptor
        if is_alone:
            _were_unused.add(entry)
    with contextlib.suppress(PermissionError):  # it belongs to somebody else
        os.utime(entry)


def remove_superseded(file: Path, of_any_state: str) -> None:
    """Remove earlier states of a file before it is written, where no other process can use them.

    Args:
        file: in an entry that this process holds.
        of_any_state: how the names of all states begin.
    """
    if file.parent in _were_unused:
        for earlier in file.parent.glob(f"{glob.escape(of_any_state)}*{file.suffix}"):
            earlier.unlink(missing_ok=True)


def size_of(entry: Path) -> int:
    """Return how many bytes of the disk an entry takes; 0 where there is none."""
    size_bytes = 0
    for file in entry.rglob("*"):
        with contextlib.suppress(FileNotFoundError):  # another process has renamed or removed it
            size_bytes += file.stat().st_blocks * 512
    return size_bytes


def list_entries(folder: Path) -> list[Entry]:
    """Return the entries of a cache, those that were used last at the end.

    Args:
        folder: of pictures; what the usual one has beside it counts as well.
    """
    found = [_describe(path, _kind_of(name)) for path, name in _matches(folder, _NAMES)]
    if folder == cache_folder("folder"):
        for kind in _OTHERS:
            others = _matches(cache_folder(kind), _OTHER_NAMES)
            found += [_describe(path, kind) for path, _ in others]
    entries = [entry for entry in found if entry]
    return sorted(entries, key=lambda entry: (entry.used_s, entry.path))


def _matches(folder: Path, names: re.Pattern[str]) -> Iterator[tuple[Path, re.Match[str]]]:
    with contextlib.suppress(FileNotFoundError, PermissionError):
        for path in folder.iterdir():
            if (match := names.fullmatch(path.name)) and path.is_dir():
                yield path, match


def _kind_of(name: re.Match[str]) -> Kind:
    return "stored" if name[1] else "notes" if name[2] else "images"


def keep_within_limit(config: DataConfig, growth_bytes: int = 0) -> None:
    """Prune the caches of a run: the usual one and data.cache_dir, each to data.cache_limit_gb.

    Args:
        growth_bytes: what the run will add to data.cache_dir.
    """
    limit_bytes, own = config.cache_limit_gb * 1e9, folder_of(config)
    for folder in {own, cache_folder("folder")}:
        remove_leftovers(folder)
        prune(folder, limit_bytes - growth_bytes * (folder == own))


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
    """Remove an entry; one that a process holds, or of another user, stays.

    Returns:
        Whether it is gone.
    """
    try:
        descriptor = os.open(entry, os.O_RDONLY)
    except FileNotFoundError:
        return True
    except PermissionError:
        return False
    try:
        if entry in _held or not _can_lock(descriptor) or not _may_remove(entry):
            return False
        # In one step, so that nobody finds half of it.
        going = entry.with_name(f"{_GOING}{entry.name}-{os.getpid()}")
        entry.rename(going)
        shutil.rmtree(going, ignore_errors=True)  # what is left, `remove_leftovers` takes
    except FileNotFoundError:  # another process was quicker
        return True
    finally:
        os.close(descriptor)
    return True


def _may_remove(entry: Path) -> bool:
    """Return whether the system lets this user empty an entry, and remove it."""
    above = entry.parent.stat()
    owners = (0, entry.stat().st_uid, above.st_uid)
    if above.st_mode & stat.S_ISVTX and os.geteuid() not in owners:
        return False
    return all(os.access(path, os.W_OK) for path in (entry, entry.parent))


def remove_leftovers(folder: Path) -> None:
    """Remove what processes that were killed have left: half removed entries, half written files.

    A file may be somebody's work, perhaps on another machine, until it is a day old.
    """
    above = [cache_folder(kind) for kind in _OTHERS] if folder == cache_folder("folder") else []
    for place in (folder, *above):
        for path in place.glob(f"{_GOING}*"):
            shutil.rmtree(path, ignore_errors=True)
        for entry, _ in _matches(place, _HALF_IMAGES):
            if _is_abandoned(entry):
                shutil.rmtree(entry, ignore_errors=True)
        for entry, _ in _matches(place, _NAMES if place == folder else _OTHER_NAMES):
            for path in entry.glob(".*"):
                with contextlib.suppress(OSError):  # it belongs to somebody else
                    if _is_abandoned(path):
                        path.unlink(missing_ok=True)


def _is_abandoned(path: Path) -> bool:
    with contextlib.suppress(FileNotFoundError):
        return path.stat().st_mtime < time.time() - _ABANDONED_AFTER_S
    return False


def _describe(path: Path, kind: Kind) -> Entry | None:
    """Describe an entry; None if it was removed meanwhile, or this user may not look into it."""
    try:
        size_bytes = size_of(path)
        about = "images of one size"
        if (path / ABOUT).exists():
            about = (path / ABOUT).read_text(encoding="utf-8", errors="replace").strip()
        return Entry(path, kind, about, size_bytes, path.stat().st_mtime, _is_held(path))
    except (FileNotFoundError, PermissionError):
        return None


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
