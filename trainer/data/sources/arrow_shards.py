"""Read tables that are stored by columns, with the pictures in them or beside them.

One file, or a folder of shards, as the Hugging Face hub keeps them: `train-00000-of-00004.parquet`,
`data/test-00000-of-00001.parquet`, `train/data-00000-of-00001.arrow`.
"""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from trainer.base.errors import UserError
from trainer.base.locks import lock_file
from trainer.config.schema import DataConfig
from trainer.data.pictures.names import PARTS, guess_part, is_ignored, is_picture
from trainer.data.pictures.places import Places, Spans
from trainer.data.sources import picture_blob
from trainer.data.sources.arrow_columns import check_types, is_text, paths_of, texts_of
from trainer.data.sources.arrow_file import SUFFIXES, ArrowFile
from trainer.data.sources.download import cache_folder
from trainer.data.sources.table_rows import (
    Role,
    Rows,
    choose_columns,
    class_columns,
    join_flags,
)
from trainer.data.stored import entries

_ROWS_AT_ONCE = 2**16


def find_shards(root: Path) -> list[Path]:
    """Return the files of columns in a folder and in those below it; the root if it is one."""
    if not root.is_dir():
        return [root] * (root.suffix.lower() in SUFFIXES)
    return sorted(
        path
        for path in root.rglob("*")
        if path.suffix.lower() in SUFFIXES
        and not any(is_ignored(name) for name in path.relative_to(root).parts)
    )


def has_shards(root: Path) -> bool:
    """Return whether a root that may be a folder of pictures holds files of columns instead.

    Only the places where the hub and `datasets` put them are looked at, and a folder of pictures
    that has such a file too stays one.
    """
    if not root.is_dir():
        return root.suffix.lower() in SUFFIXES
    return not _has_classes(root) and any(
        path.suffix.lower() in SUFFIXES and path.is_file()
        for folder in (root, root / "data", *(root / part for part in PARTS))
        for path in folder.glob("*.*")
    )


def _has_classes(root: Path) -> bool:
    """Return whether there are pictures in CLASS/ or folders in PART/."""
    for folder in root.iterdir():
        if folder.is_dir() and not is_ignored(folder.name):
            is_part = guess_part(folder.name) is not None
            if any(
                entry.is_dir() if is_part else is_picture(entry.name)
                for entry in folder.iterdir()
                if not is_ignored(entry.name)
            ):
                return True
    return False


def read_rows(root: Path, config: DataConfig) -> Rows:
    """Read the rows of all shards, but not their pictures.

    Raises:
        UserError: a shard is damaged or lacks a column, or they do not fit together.
    """
    shards = [_open(root, path, config) for path in find_shards(root)]
    if not shards:
        raise UserError(f"data.root: {root} has no files that end in {', '.join(SUFFIXES)}")
    _check_alike(shards)
    parts = _parts_by_name(shards) if config.part_column == DataConfig().part_column else None
    is_inside = shards[0].has_bytes()
    columns: dict[Role, list[str]] = {role: [] for role in (*shards[0].columns, "label")}
    if parts:
        columns["part"] = []
    begins = [0]
    for number, shard in enumerate(shards):
        for role, texts in shard.read(is_inside).items():
            if role != "part" or not parts:
                columns[role] += texts
        begins.append(len(columns["label"]))
        if parts:
            columns["part"] += [parts[number]] * (begins[-1] - begins[-2])
    bounds = np.array(begins)

    def where(row: int) -> str:
        number = int(np.searchsorted(bounds, row, side="right")) - 1
        return f"{shards[number].file.path}, row {row - begins[number]} (from 0)"

    if not begins[-1]:
        raise UserError(f"data.root: {root} has no rows")
    folder = root if root.is_dir() else root.parent
    inside = _InsidePictures(root, shards, bounds, columns["file"]) if is_inside else None
    has_class_columns = shards[0].class_columns is not None
    return Rows(root, columns, folder, where, shards[0].class_names, inside, has_class_columns)


def column_names(root: Path) -> list[str]:
    """Return the names of the columns, those of the first shard."""
    shards = find_shards(root)
    return list(ArrowFile(shards[0]).schema.names) if shards else []


@dataclass(frozen=True, eq=False)
class _Shard:
    """A file of columns.

    Args:
        name: relative to the folder of all shards.
        columns: the names of those that count.
        class_names: of the labels, if they are numbers and the file has names for them.
        class_columns: those of the classes, where each has its own; None: one has the labels.
    """

    file: ArrowFile
    name: str
    columns: dict[Role, str]
    class_names: tuple[str, ...] | None
    class_columns: tuple[str, ...] | None

    def has_bytes(self) -> bool:
        """Return whether the pictures are inside, as that of the first row tells."""
        import pyarrow as pa

        column = self.columns["file"]
        kind = self.file.schema.field(column).type
        if not pa.types.is_struct(kind):
            return not is_text(kind)
        for batch in self.file.iter_batches([column], 1):
            if batch.num_rows:
                return bool(picture_blob.bytes_of(batch.column(column))[0].is_valid)
        return True

    def read(self, is_inside: bool) -> dict[Role, list[str]]:
        """Read the rows as text; the files are relative to the folder of all shards."""
        import pyarrow as pa

        names = dict(self.columns)
        column = names["file"]
        is_struct = pa.types.is_struct(self.file.schema.field(column).type)
        wanted = [name for role, name in names.items() if role != "file"]
        wanted += self.class_columns or ()
        wanted += [f"{column}.path"] if is_struct else [column] * (not is_inside)
        texts: dict[Role, list[str]] = {role: [] for role in (*names, "label")}
        for batch in self.file.iter_batches(wanted, _ROWS_AT_ONCE):
            for role, name in names.items():
                if role != "file":
                    texts[role] += texts_of(batch.column(name))
                elif is_struct or not is_inside:
                    texts["file"] += paths_of(batch.column(name))
            if self.class_columns:
                rows = zip(
                    *(texts_of(batch.column(name)) for name in self.class_columns), strict=True
                )
                for flags in rows:
                    where = f"{self.file.path}, row {len(texts['label'])} (from 0)"
                    texts["label"].append(join_flags(flags, self.class_columns, where))
        if is_inside:
            paths = texts["file"] or [""] * len(texts["label"])
            texts["file"] = [
                f"{self.name}/{row}" + f"/{posixpath.basename(path)}" * bool(path)
                for row, path in enumerate(paths)
            ]
        else:
            folder = posixpath.dirname(self.name)
            texts["file"] = [path and posixpath.join(folder, path) for path in texts["file"]]
        return texts


def _open(root: Path, path: Path, config: DataConfig) -> _Shard:
    file = ArrowFile(path)
    columns = choose_columns(config, file.schema.names, path)
    class_names = class_columns(config)
    of_classes: list[tuple[Role, str]] = [("label", name) for name in class_names or ()]
    check_types(file, [*columns.items(), *of_classes], several=config.multi_label)
    name = path.relative_to(root).as_posix() if root.is_dir() else path.name
    named = class_names or file.class_names(columns["label"])
    return _Shard(file, name, columns, named, class_names)


def _check_alike(shards: Sequence[_Shard]) -> None:
    first = shards[0]
    for shard in shards[1:]:
        if shard.columns != first.columns or shard.class_names != first.class_names:
            raise UserError(
                f"{shard.file.path}: has other columns or names of classes than {first.file.path}; "
                "all shards of a table must have the same"
            )


def _parts_by_name(shards: Sequence[_Shard]) -> list[str] | None:
    """Return the part of each shard by the name of its file or its folder; None: none says it."""
    parts = [next(_guess_parts(shard.name), None) for shard in shards]
    if not any(parts):
        return None
    for shard, part in zip(shards, parts, strict=True):
        if part not in PARTS:
            raise UserError(
                f"{shard.file.path}: its name does not tell whether it is of {', '.join(PARTS)}, "
                "as those of other shards do; rename it, as in train-00000-of-00004.parquet"
            )
    return [part or "" for part in parts]


def _guess_parts(name: str) -> Iterator[str]:
    *folders, file = name.split("/")
    for word in (re.split(r"[-_.]", file)[0], *reversed(folders)):
        if part := guess_part(word):
            yield part


@dataclass(frozen=True, eq=False)
class _InsidePictures:
    """The pictures inside of shards.

    Args:
        begins: the first row of each shard, and how many there are in all, int64.
        names: of the pictures of all rows.
    """

    root: Path
    shards: Sequence[_Shard]
    begins: npt.NDArray[np.int64]
    names: Sequence[str]

    def are_copied(self) -> bool:
        return all(
            picture_blob.is_copied(shard.file.path, shard.columns["file"], self.entry)
            for shard in self.shards
        )

    @property
    def entry(self) -> Path:
        """The entry of the cache for the copies."""
        return cache_folder("tables") / entries.name_of("tables", self.root)

    def copy(self, rows: Sequence[int]) -> Places:
        """Return the places of pictures in the copies, which are made where they are missing."""
        chosen = np.array(rows, dtype=np.int64)
        shard_of = np.searchsorted(self.begins, chosen, side="right") - 1
        numbers, of_copy = np.unique(shard_of, return_inverse=True)
        copies = self._copies(numbers.tolist())
        offsets, sizes = np.empty_like(chosen), np.empty_like(chosen)
        for place, (number, (_, bounds)) in enumerate(zip(numbers.tolist(), copies, strict=True)):
            own = of_copy == place
            within = chosen[own] - self.begins[number]
            offsets[own], sizes[own] = bounds[within], np.diff(bounds)[within]
        files = tuple(file for file, _ in copies)
        is_deflated = np.zeros(len(chosen), dtype=np.bool_)
        folder = self.root if self.root.is_dir() else self.root.parent
        origins = (f"{folder}{os.sep}",) * len(files)
        of_file = of_copy.astype(np.int32)
        spans = Spans(files, of_file, offsets, sizes, is_deflated, origins=origins)
        return Places(self.root, [self.names[row] for row in rows], spans)

    def _copies(self, numbers: Sequence[int]) -> list[tuple[Path, npt.NDArray[np.int64]]]:
        """Return the copies of some shards' pictures, and where in them each picture begins."""
        entry = self.entry
        without = "processes that start together copy the same pictures, each for itself"
        try:
            entries.use(entry, f"{self.root}: the pictures inside")
            with lock_file(entry / "lock", "copies these pictures", without):
                return [
                    picture_blob.copy_pictures(shard.file.path, shard.columns["file"], entry)
                    for shard in (self.shards[number] for number in numbers)
                ]
        except OSError as error:
            raise UserError(
                f"data.root: the pictures of {self.root} cannot be copied into the cache {entry} "
                f"({error}); make room, or set XDG_CACHE_HOME to another folder"
            ) from error
