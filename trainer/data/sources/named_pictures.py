"""List the pictures that a user names one by one: by files, folders, archives and addresses."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from trainer.base.errors import UserError
from trainer.data.pictures.decoding import SUFFIXES
from trainer.data.pictures.names import is_ignored, is_picture
from trainer.data.pictures.places import Place
from trainer.data.sources import archive, remote
from trainer.data.sources.folder import is_folder

KEY = "FILE"
"""what a user names them by, as messages have it"""

log = logging.getLogger("lockstep")


def list_named(names: Iterable[str], *, skip: bool) -> list[Place]:
    """Return the pictures of all names, in their order.

    A folder or an archive stands for all pictures in it and below, sorted by name. An archive is
    read in place, by the cache's list of its members; that of an address is downloaded before.

    Args:
        names: a picture, a folder, an archive, or the address of an archive, each.
        skip: name what may not be read in a warning, instead of raising an error.

    Raises:
        UserError: there is no such file, it may not be read, has no picture, or is broken.
    """
    found: list[Place] = []
    for name in names:
        if remote.is_address(name):
            found += _in_archive(name, skip)
            continue
        path = Path(name)
        try:
            if path.is_dir():
                found += map(Place, _below(path, skip))
            elif not path.exists():
                raise UserError(f"{path}: there is no such file")
            elif archive.is_archive(path.name) and path.is_file():
                found += _in_archive(name, skip)
            else:
                found.append(Place(path))
        except OSError as error:
            _unreadable(path, error, skip)
    return found


def _in_archive(name: str, skip: bool) -> list[Place]:
    """Return the pictures in an archive, which may be at an address."""
    shown = name.partition("#")[0] if remote.is_address(name) else str(Path(name))
    try:
        path = _fetch(name) if remote.is_address(name) else Path(name)
        members = archive.list_archive(path)
    except UserError as error:
        if not skip:
            raise
        log.warning("%s; skipped", error)
        return []
    assert members.spans
    rows = [row for row, member in enumerate(members.names) if is_picture(member)]
    if not rows:
        raise UserError(f"{shown}: there are no pictures in this archive ({', '.join(SUFFIXES)})")
    rows.sort(key=members.names.__getitem__)
    places = replace(members.places, spans=replace(members.spans, origins=(f"{shown}: ",)))
    return [places[row] for row in rows]


def _fetch(address: str) -> Path:
    """Return where the archive of an address is on this machine, after it was downloaded."""
    if not archive.is_archive(remote.locate(address, KEY).name):
        raise UserError(
            f"{KEY}: {address} must be the address of an archive, whose name ends in one of "
            f"{', '.join(archive.SUFFIXES)}"
        )
    return remote.fetch(address, KEY)


def _below(top: Path, skip: bool) -> list[Path]:
    """Return the pictures in a folder and below that training would take, sorted by name."""
    found: list[Path] = []
    has_all = True
    waiting: list[tuple[Path, frozenset[tuple[int, int]]]] = [(top, frozenset())]
    while waiting:
        folder, above = waiting.pop()
        try:
            status = folder.stat()
            place = (status.st_dev, status.st_ino)
            if place in above:  # by a link that leads back to it
                continue
            for path, goes_deeper in _list(folder):
                if goes_deeper:
                    waiting.append((path, above | {place}))
                elif is_picture(path.name):
                    found.append(path)
                elif path.is_symlink() and not path.exists():
                    log.warning("%s: is a link that leads nowhere; skipped", path)
        except OSError as error:
            _unreadable(folder, error, skip)
            has_all = False
    if not found and has_all:
        raise UserError(f"{top}: there are no pictures in this folder ({', '.join(SUFFIXES)})")
    return sorted(found, key=lambda path: path.parts)


def _list(folder: Path) -> list[tuple[Path, bool]]:
    """Return what is in a folder and not hidden, and which of it are folders."""
    with os.scandir(folder) as entries:
        return [
            (folder / entry.name, is_folder(entry))
            for entry in entries
            if not is_ignored(entry.name)
        ]


def _unreadable(path: Path, error: OSError, skip: bool) -> None:
    message = f"{path}: may not be read ({error.strerror})"
    if not skip:
        raise UserError(f"{message}; give yourself access to it, or skip it: --on_bad skip")
    log.warning("%s; skipped", message)
