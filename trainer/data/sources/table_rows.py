"""The rows of a table of pictures, however they are stored, and the columns that count."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from trainer.base.errors import UserError
from trainer.config.schema import DataConfig
from trainer.data.pictures.names import join_some
from trainer.data.pictures.places import Places
from trainer.data.sources.picture_groups import is_pattern

Role = Literal["file", "label", "part", "group", "weight"]
"""what a column says; `data.ROLE_column` names it"""

REQUIRED: tuple[Role, ...] = ("file", "label")
OPTIONAL: tuple[Role, ...] = ("part", "group", "weight")

SEPARATOR = "|"
"""between the labels of a picture that has several"""

_FLAGS = {"1": True, "1.0": True, "true": True, "0": False, "0.0": False, "false": False}
"""what a class's own column says, in lower case"""

_OTHER_DEFAULTS: dict[Role, str] = {"file": "image"}
"""taken where the default is not there: what a table with the pictures inside calls them"""


class InsidePictures(Protocol):
    """Pictures inside of a table, which have to be copied before they can be read at random."""

    def are_copied(self) -> bool:
        """Return whether all of them are."""

    def copy(self, rows: Sequence[int], /) -> Places:
        """Return where the pictures of some rows lie, after they were copied."""


@dataclass(frozen=True, eq=False)
class Rows:
    """The rows of a table, as text, a sequence for each column that counts.

    Args:
        table: what the user has named, for messages.
        columns: what the rows have, "" where it is nothing. Of `file` the path of a file, relative
            to `folder`, or the name of a picture inside of the table.
        folder: where the files are.
        where: names a row, from 0, in a message.
        class_names: those of the labels 0, 1, ..., where the table has them apart from its rows.
        has_class_columns: whether they are the names of columns, one for each class.
        inside: the pictures, if they are inside of the table.
    """

    table: Path
    columns: Mapping[Role, Sequence[str]]
    folder: Path
    where: Callable[[int], str]
    class_names: tuple[str, ...] | None = None
    inside: InsidePictures | None = None
    has_class_columns: bool = False

    def __len__(self) -> int:
        return len(self.columns["label"])


def choose_columns(config: DataConfig, found: Sequence[str], table: Path) -> dict[Role, str]:
    """Return the names of the columns that count, of those that a table has.

    An optional one is there if the table has it, unless its key is null. Weights count only where
    something is drawn by them. Where data.groups is the name of a column, that has the groups.

    Where each class has its own column, by `class_columns`, there is none of the role label.

    Raises:
        UserError: a column is missing or there twice.
    """
    defaults, chosen = DataConfig(), dict[Role, str]()
    for role in (*REQUIRED, *OPTIONAL):
        key = f"{role}_column"
        name = getattr(config, key)
        if isinstance(name, list):
            continue
        is_default = name == getattr(defaults, key)
        if role == "group" and isinstance(config.groups, str) and not is_pattern(config.groups):
            key, name, is_default = "groups", config.groups, False
        if name not in found and is_default and _OTHER_DEFAULTS.get(role) in found:
            name = _OTHER_DEFAULTS[role]
        if role == "weight" and config.sampling != "weights" and (is_default or name in found):
            continue
        if name in found:
            chosen[role] = name
        elif name is not None and (role in REQUIRED or not is_default or role == "weight"):
            raise UserError(f"data.{key}: {table} has no column {name}{_nearest(name, found)}")
    of_classes = class_columns(config) or ()
    for name in of_classes:
        if name not in found:
            raise UserError(
                f"data.label_column: {table} has no column {name}{_nearest(name, found)}"
            )
    _check_single([*chosen.values(), *of_classes], found, table)
    return chosen


def _check_single(chosen: Sequence[str], found: Sequence[str], table: Path) -> None:
    for name in chosen:
        if list(found).count(name) > 1:
            raise UserError(f"{table}: has two columns {name}; rename one of them")


def class_columns(config: DataConfig) -> tuple[str, ...] | None:
    """Return the classes where each has its own column of 0 and 1; None: one has the labels."""
    return tuple(config.label_column) if isinstance(config.label_column, list) else None


def join_flags(flags: Sequence[str], class_names: Sequence[str], where: str) -> str:
    """Return the numbers of the classes whose columns say 1, as the text of one row's label.

    Raises:
        UserError: another value than 0 or 1; names the row and the column.
    """
    chosen = []
    for number, flag in enumerate(flags):
        is_one = _FLAGS.get(flag.strip().lower())
        if is_one is None:
            raise UserError(
                f"{where}: the column {class_names[number]} must be 0 or 1, found {flag!r}"
            )
        if is_one:
            chosen.append(str(number))
    return SEPARATOR.join(chosen)


def _nearest(name: str, found: Sequence[str]) -> str:
    by_plain = {other.casefold(): other for other in found}
    nearest = difflib.get_close_matches(name.casefold(), by_plain, 1)
    meant = f"; did you mean {by_plain[nearest[0]]}?" if nearest else ""
    return f"; it has {join_some([other or '(without a name)' for other in found])}{meant}"
