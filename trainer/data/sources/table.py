"""List the pictures that a table names, a row for each, and say what is wrong with its rows."""

from __future__ import annotations

import os
import posixpath
from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from trainer.base.errors import UserError
from trainer.config.schema import DataConfig
from trainer.data import label_matrix
from trainer.data.pictures.names import PARTS, describe, guess_part, join_some
from trainer.data.pictures.picture_set import ListedPictures
from trainer.data.pictures.places import Places
from trainer.data.sources.download import cache_folder
from trainer.data.sources.picture_groups import is_pattern
from trainer.data.sources.picture_plan import PictureList
from trainer.data.sources.table_archives import ArchivedFiles, find_archived
from trainer.data.sources.table_labels import RowLabels, read_labels
from trainer.data.sources.table_reading import read_rows, without_weights
from trainer.data.sources.table_rows import Rows

Positions = npt.NDArray[np.int64]


def list_pictures(table: Path, config: DataConfig) -> PictureList:
    """List the pictures of all parts; the order of the rows does not matter.

    Where no row is of the test, test pictures are to be taken from those to train on.

    Raises:
        UserError: a row or a column is wrong, or nothing is left to train on.
    """
    rows = read_rows(table, config)
    parts = _parts_of(rows, config)
    if parts is not None and "train" not in parts:
        raise UserError(
            f"{table}: no row has train in the column {config.part_column}, so there is nothing to "
            "train on"
        )
    if parts is None:
        parts = {"train": np.arange(len(rows), dtype=np.int64)}
    return _list(rows, config, parts, class_part="train")


def is_without_parts(table: Path, config: DataConfig) -> bool:
    """Return whether nothing says which rows are to train on and which to test on."""
    return _parts_of(read_rows(table, without_weights(config)), config) is None


def has_part(table: Path, config: DataConfig, part: str) -> bool:
    """Return whether a table has rows of a part that `list_part` can list."""
    parts = _parts_of(read_rows(table, without_weights(config)), config)
    return part == "test" if parts is None else part in parts


def list_part(table: Path, config: DataConfig, part: str) -> PictureList:
    """List only one part, which may have any classes: images to evaluate, not to learn from.

    All rows of a table without a column for the part are of the test.

    Args:
        part: one that the table has by `has_part`.

    Raises:
        UserError: a row or a column is wrong.
    """
    rows = read_rows(table, without_weights(config))
    parts = _parts_of(rows, config) or {"test": np.arange(len(rows), dtype=np.int64)}
    return _list(rows, config, {part: parts[part]}, class_part=None)


def describe_uncopied(table: Path, config: DataConfig) -> str | None:
    """Return, in words, what `list_pictures` would copy; None for nothing."""
    rows = read_rows(table, config)
    if not rows.inside or rows.inside.are_copied():
        return None
    return (
        f"{len(rows):,} pictures inside of {table}, not copied yet; a run does it at its start, "
        f"into {cache_folder('tables')}"
    )


def _parts_of(rows: Rows, config: DataConfig) -> dict[str, Positions] | None:
    """Return which rows are of each part that there is, in their order; None: no column says it."""
    words = rows.columns.get("part")
    if words is None:
        return None
    meanings = {word: guess_part(word.strip()) for word in set(words)}
    for row, word in enumerate(words):
        if meanings[word] not in PARTS:
            raise UserError(
                f"{rows.where(row)}: the part {word!r} (data.part_column: {config.part_column}) is "
                f"none of {', '.join(PARTS)}"
            )
    numbers = {word: PARTS.index(meaning) for word, meaning in meanings.items() if meaning}
    of_rows = np.fromiter((numbers[word] for word in words), dtype=np.int8, count=len(words))
    found = {part: np.flatnonzero(of_rows == number) for number, part in enumerate(PARTS)}
    return {part: positions for part, positions in found.items() if len(positions)}


def _list(
    rows: Rows, config: DataConfig, parts: dict[str, Positions], class_part: str | None
) -> PictureList:
    """List the pictures of some parts.

    Args:
        class_part: the one whose labels are the classes, of which there must be two; None: all.
    """
    names = rows.columns["file"] if rows.inside else names_of(rows)
    labels, texts = read_labels(rows, several=config.multi_label), rows.columns
    repeated = _find_repeats(rows, names, labels.texts(), np.concatenate(list(parts.values())))
    class_names = labels.class_names(rows, parts, class_part)
    absent = [] if rows.inside else _find_absent(rows, names)
    archived = find_archived(rows.folder) if absent else None
    in_archives = {row for row in absent if archived and names[row] in archived}
    absent = [row for row in absent if row not in in_archives]
    missing = _check_missing(rows, names, absent, archived, config)
    warnings = [
        *_left_out("there are no such files", [rows.where(row) for row in sorted(missing)]),
        *_left_out("they repeat an earlier row", [rows.where(row) for row in sorted(repeated)]),
    ]
    listed = {}
    for part, positions in parts.items():
        used = [row for row in positions.tolist() if row not in missing and row not in repeated]
        lost = labels.classes_of(positions) - labels.classes_of(np.array(used, dtype=np.int64))
        if lost:
            raise UserError(
                f"{rows.table}: none of the files of class {describe(min(lost))} in {part} is there"
            )
        used.sort(key=lambda row: row if rows.inside else names[row])
        used = _sort_by_class(used, labels, class_names)
        listed[part] = ListedPictures(
            _places_of(rows, names, used, archived if in_archives else None, in_archives),
            labels.to_labels(np.array(used, dtype=np.int64), class_names),
            _groups_of(rows, used, config) if "group" in texts else None,
            _weights_of(rows, used) if "weight" in texts else None,
        )
    return PictureList(
        root=rows.table,
        class_names=class_names,
        parts=listed,
        kind="table",
        makes_test=class_part is not None and "test" not in parts,
        warnings=tuple(warnings),
    )


def _sort_by_class(used: Sequence[int], labels: RowLabels, class_names: Sequence[str]) -> list[int]:
    """Return rows sorted by class, and within it in their order."""
    rows = np.array(used, dtype=np.int64)
    classes = label_matrix.strata(labels.to_labels(rows, class_names))
    return [int(row) for row in rows[np.argsort(classes, kind="stable")]]


def _places_of(
    rows: Rows,
    names: Sequence[str],
    used: Sequence[int],
    archived: ArchivedFiles | None,
    in_archives: Collection[int],
) -> Places:
    if rows.inside:
        return rows.inside.copy(used)
    of_rows = [names[row] for row in used]
    if not archived:
        return Places(rows.folder, of_rows)
    return archived.places(of_rows, np.array([row not in in_archives for row in used], np.bool_))


def names_of(rows: Rows) -> list[str]:
    """Return the files, each path written in one way."""
    names = []
    for row, text in enumerate(rows.columns["file"]):
        if not text or "\0" in text:
            raise UserError(f"{rows.where(row)}: names no file, found {text!r}")
        names.append(posixpath.normpath(text))
    return names


def _find_repeats(
    rows: Rows, names: Sequence[str], labels: Sequence[str], positions: Positions
) -> set[int]:
    """Return the rows that say again what an earlier row says of a picture.

    Raises:
        UserError: two rows say different things of one picture.
    """
    repeated = set()
    first: dict[str, int] = {}
    for row in np.sort(positions).tolist():
        before = first.setdefault(names[row], row)
        if before == row:
            continue
        for role, texts in {**rows.columns, "label": labels}.items():
            if role != "file" and texts[before] != texts[row]:
                raise UserError(
                    f"{rows.where(row)}: {names[row]} has the {role} {texts[row]!r}, and "
                    f"{texts[before]!r} in {rows.where(before)}; remove one of the rows"
                )
        repeated.add(row)
    return repeated


def _find_absent(rows: Rows, names: Sequence[str]) -> list[int]:
    """Return the rows whose files are not on the disk; each folder of them is listed once."""
    content: dict[str, set[str]] = {}
    absent = []
    for row, name in enumerate(names):
        folder, _, file = name.rpartition("/")
        if folder not in content:
            content[folder] = _content_of(rows.folder / (folder or ("/" * (name[0] == "/"))))
        if file not in content[folder]:
            absent.append(row)
    return absent


def _check_missing(
    rows: Rows,
    names: Sequence[str],
    missing: Sequence[int],
    archived: ArchivedFiles | None,
    config: DataConfig,
) -> set[int]:
    """Return the rows whose files are neither on the disk nor in an archive beside the table.

    Raises:
        UserError: there are some, and they are not to be left out, or may be in a broken archive.
    """
    if missing and archived and archived.broken:
        raise UserError(
            f"{rows.where(missing[0])}: there is no file {rows.folder / names[missing[0]]}, and an "
            f"archive beside the table may have it: {archived.broken[0]}"
        )
    if missing and config.on_bad == "stop":
        some = [
            f"{rows.where(row)}: there is no file {rows.folder / names[row]}" for row in missing
        ]
        raise UserError(
            f"data.root: {len(missing):,} of the {len(names):,} files of {rows.table} are not "
            "there:\n- " + join_some(some, "\n- ") + "\nLeave them out: data.on_bad: skip"
        )
    return set(missing)


def _content_of(folder: Path) -> set[str]:
    try:
        with os.scandir(folder) as entries:
            return {entry.name for entry in entries}
    except (FileNotFoundError, NotADirectoryError):
        return set()


def _groups_of(rows: Rows, used: Sequence[int], config: DataConfig) -> list[str]:
    """Return the groups that the rows name; they do not count if data.groups tells them itself."""
    groups = [rows.columns["group"][row] for row in used]
    is_column = config.groups is None or (
        isinstance(config.groups, str) and not is_pattern(config.groups)
    )
    for row, group in zip(used, groups, strict=True):
        if is_column and not group.strip():
            raise UserError(
                f"{rows.where(row)}: has no group; every picture must have one, or "
                "data.group_column be null"
            )
    return groups


def _weights_of(rows: Rows, used: Sequence[int]) -> npt.NDArray[np.float64]:
    texts = rows.columns["weight"]
    weights = np.empty(len(used))
    for place, row in enumerate(used):
        try:
            weights[place] = float(texts[row])
        except ValueError:
            weights[place] = np.nan
        if not 0 <= weights[place] < np.inf:
            raise UserError(
                f"{rows.where(row)}: the weight {texts[row]!r} must be a number, 0 or more"
            )
    return weights


def _left_out(why: str, rows: Sequence[str]) -> list[str]:
    return [f"left out, as {why}: {join_some(rows)}"] if rows else []
