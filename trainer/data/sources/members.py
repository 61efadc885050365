"""What a folder or an archive has: the names of its files, and where their bytes are."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from trainer.base.errors import UserError
from trainer.data.pictures.file_states import States
from trainer.data.pictures.names import is_ignored
from trainer.data.pictures.places import Places, Spans

_UPPER_FOLDERS = 3
"""levels of folders whose names the layout is told by: a top folder, a part and a class"""


@dataclass(frozen=True, eq=False)
class Members:
    """The files of a folder or an archive, as they were found.

    Args:
        root: the folder or the archive.
        names: of the files, with slashes; hidden ones and those of systems are left out.
        folders: the names of the upper folders, which may be empty.
        broken_links: those of `names` that are links which lead nowhere.
        states: of the files of a folder; None: not known, or an archive.
        spans: where in an archive the files are; None: each has its own, below `root`.
    """

    root: Path
    names: Sequence[str]
    folders: frozenset[str]
    broken_links: frozenset[str] = frozenset()
    states: States | None = None
    spans: Spans | None = None

    @property
    def is_archive(self) -> bool:
        """Whether the files lie in one larger file."""
        return self.spans is not None

    @property
    def places(self) -> Places:
        """The places of all files."""
        return Places(self.root, self.names, self.spans, self.states)

    def describe(self, name: str) -> str:
        """Return where a file or a folder is, for messages: `own/cat`, or `own.zip: cat`."""
        if not name:
            return str(self.root)
        return f"{self.root}: {name}" if self.is_archive else str(self.root / name)


def clean_name(archive: Path, name: str) -> str | None:
    """Return the name of a member of an archive without needless slashes and dots.

    Returns:
        None for the root, hidden files and those of systems.

    Raises:
        UserError: the name leads out of the archive, or is not UTF-8.
    """
    pieces = [piece for piece in name.split("/") if piece not in ("", ".")]
    if name.startswith("/") or ".." in pieces or re.match("[A-Za-z]:", name):
        raise UserError(
            f"{archive}: the member {name!a} leads out of the archive; such archives are not read"
        )
    if "\\" in name:
        raise UserError(
            f"{archive}: the member {name!a} has a backslash in its name; pack the archive again, "
            "with slashes between the folders"
        )
    if not pieces or any(map(is_ignored, pieces)):
        return None
    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise UserError(
            f"{archive}: the member {name!a} has a name that is not UTF-8; pack the archive again "
            "with another name"
        ) from error
    return "/".join(pieces)


def check_distinct(archive: Path, names: Sequence[str]) -> None:
    """Raise a `UserError` if two members of an archive have one name."""
    seen: set[str] = set()
    if len(set(names)) == len(names):
        return
    for name in names:
        if name in seen:
            raise UserError(f"{archive}: has two members named {name!a}; remove one of them")
        seen.add(name)


def upper_folders(names: Iterable[str]) -> set[str]:
    """Return the upper ones of the folders that some files lie in."""
    found: set[str] = set()
    for name in names:
        end = -1
        for _ in range(_UPPER_FOLDERS):
            if (end := name.find("/", end + 1)) < 0:
                break
            found.add(name[:end])
    return found
