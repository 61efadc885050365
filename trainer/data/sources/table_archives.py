"""Find the files that a table names in archives beside the table, where they are read in place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from trainer.base.errors import UserError
from trainer.data.pictures.names import is_picture
from trainer.data.pictures.places import Places, Spans
from trainer.data.sources.archive import is_archive, list_archive
from trainer.data.sources.layout import top_folder


@dataclass(frozen=True, eq=False)
class ArchivedFiles:
    """The pictures in some archives.

    Args:
        folder: that the archives lie in.
        spans: of all members of all archives.
        rows: of `spans`, by the name of a picture; the folder that all members of its archive lie
            in may be left out of it.
        twice: names that several pictures have, with their archives.
        broken: what is wrong with archives that cannot be read; others may have all that is named.
    """

    folder: Path
    spans: Spans
    rows: dict[str, int]
    twice: dict[str, str]
    broken: tuple[str, ...]

    def __contains__(self, name: str) -> bool:
        return name in self.rows

    def places(self, names: Sequence[str], are_outside: npt.NDArray[np.bool_]) -> Places:
        """Return the places of pictures by their names.

        Args:
            are_outside: which of them have files of their own, bool (n,).

        Raises:
            UserError: several pictures in archives have one of these names.
        """
        rows = np.zeros(len(names), dtype=np.int64)
        for number in np.flatnonzero(~are_outside).tolist():
            name = names[number]
            if name in self.twice:
                raise UserError(
                    f"{self.twice[name]} both have a picture {name}; remove one of them"
                )
            rows[number] = self.rows[name]
        spans = self.spans.select(rows)
        for column in (spans.offset_bytes, spans.size_bytes, spans.is_deflated):
            column[are_outside] = 0
        return Places(
            self.folder, names, replace(spans, file=np.where(are_outside, -1, spans.file))
        )


def find_archived(folder: Path) -> ArchivedFiles | None:
    """List the archives in a folder; None if it has none."""
    candidates = sorted(one for one in folder.iterdir() if is_archive(one.name) and one.is_file())
    if not candidates:
        return None
    paths, archives, broken = [], [], []
    for path in candidates:
        try:
            archives.append(list_archive(path))
            paths.append(path)
        except UserError as error:
            broken.append(str(error))
    spans = [members.spans for members in archives if members.spans]
    spans = spans or [Spans.in_one_file(folder, np.zeros(0, np.int64), np.zeros(0, np.int64))]
    rows: dict[str, int] = {}
    twice: dict[str, str] = {}
    begin = 0
    begins = []
    for number, members in enumerate(archives):
        begins.append(begin)
        top = top_folder(members)
        for row, member in enumerate(members.names, start=begin):
            for name in dict.fromkeys((member, member.removeprefix(top))):
                if is_picture(name) and rows.setdefault(name, row) != row:
                    other = int(np.searchsorted(begins, rows[name], side="right")) - 1
                    twice[name] = f"{paths[other]} and {paths[number]}"
        begin += len(members.names)
    checksums = [one.checksums for one in spans if one.checksums is not None]
    joined = Spans(
        tuple(file for one in spans for file in one.files),
        np.concatenate([one.file + number for number, one in enumerate(spans)]),
        np.concatenate([one.offset_bytes for one in spans]),
        np.concatenate([one.size_bytes for one in spans]),
        np.concatenate([one.is_deflated for one in spans]),
        np.concatenate(checksums) if len(checksums) == len(spans) else None,
        tuple(f"{path}: " for path in paths),
    )
    return ArchivedFiles(folder, joined, rows, twice, tuple(broken))
