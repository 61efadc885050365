"""List the files of a folder, and of the folders in it."""

from __future__ import annotations

import errno
import os
from array import array
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from trainer.base.errors import UserError
from trainer.data.pictures.file_states import ABSENT, state_of
from trainer.data.pictures.names import PARTS, is_ignored
from trainer.data.sources.members import Members

_FileId = tuple[int, int]
"""the device and the inode of a folder"""


def list_folder(root: Path, only: str | None = None) -> Members:
    """List the files of a folder. Links are followed; hidden files are left out.

    Where the folder has some of the parts train, validation and test, no other folder is entered.

    Args:
        only: the one part to enter, if the folder has it.

    Raises:
        UserError: there is no such folder, or a link leads back to a folder that it lies in.
    """
    if not root.is_dir():
        raise UserError(f"data.root: there is no folder {root}")
    return _Walk(root, only).members()


@dataclass
class _Walk:
    root: Path
    only: str | None
    names: list[str] = field(default_factory=list)
    states: array[int] = field(default_factory=lambda: array("q"))
    folders: set[str] = field(default_factory=set)
    broken_links: set[str] = field(default_factory=set)

    def members(self) -> Members:
        parts = [part for part in PARTS if (self.root / part).is_dir()]
        entered = [self.only] if self.only in parts else parts
        above = {_identify(self.root)}
        for name in self._read("", 0):
            is_alias = name not in parts and any(
                (self.root / name).samefile(self.root / part) for part in parts
            )
            if is_alias:
                self.folders.discard(name)
            elif name in entered or not parts:
                self._enter(name, above, 1)
        return Members(
            self.root,
            self.names,
            frozenset(self.folders),
            frozenset(self.broken_links),
            np.array(self.states, np.int64).reshape(-1, len(ABSENT)),
        )

    def _enter(self, folder: str, above: set[_FileId], depth: int) -> None:
        """Note what is in a folder and in all folders below it.

        Args:
            above: the folders that it lies in.
            depth: how many they are.
        """
        own = _identify(self.root / folder)
        if own in above:
            raise UserError(
                f"data.root: {self.root / folder} is a link to a folder that it lies in; remove it"
            )
        for inner in self._read(f"{folder}/", depth):
            self._enter(inner, {*above, own}, depth + 1)

    def _read(self, prefix: str, depth: int) -> list[str]:
        """Note the files in one folder; return the names of the folders in it."""
        folders = []
        # The system finds a name in an open folder faster than the whole path to it.
        descriptor = os.open(self.root / prefix, os.O_RDONLY | os.O_DIRECTORY)
        try:
            with os.scandir(descriptor) as entries:
                for entry in entries:
                    if is_ignored(entry.name):
                        continue
                    name = prefix + entry.name
                    if is_folder(entry):
                        folders.append(name)
                        continue
                    self.names.append(name)
                    state = state_of(entry)
                    self.states.extend(state)
                    if state == ABSENT and depth < 2 and entry.is_symlink():
                        self.broken_links.add(name)
        finally:
            os.close(descriptor)
        if depth < 2:
            self.folders.update(folders)
        return sorted(folders)


def is_folder(entry: os.DirEntry[str]) -> bool:
    """Return whether an entry is a folder or a link to one."""
    try:
        return entry.is_dir()
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        return False  # a link that leads to itself leads nowhere


def _identify(folder: Path) -> _FileId:
    status = folder.stat()
    return status.st_dev, status.st_ino
