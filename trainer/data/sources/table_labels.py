"""Say which classes the rows of a table have: one each, or with `data.multi_label` any number."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from trainer.base.errors import UserError
from trainer.data import label_matrix
from trainer.data.label_matrix import Labels
from trainer.data.pictures.names import describe, normalize_class_name
from trainer.data.sources.table_rows import SEPARATOR, Rows

Positions = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class RowLabels:
    """The names of the rows' classes.

    Args:
        several: whether a row may have any number of them, and not just one.
        meanings: the names that the different texts stand for, sorted.
        of_row: which of them each row has, int64 (rows,).
    """

    several: bool
    meanings: Sequence[tuple[str, ...]]
    of_row: Positions

    def texts(self) -> list[str]:
        """Return the names of each row as one text."""
        whole = [SEPARATOR.join(meaning) for meaning in self.meanings]
        return [whole[meaning] for meaning in self.of_row.tolist()]

    def classes_of(self, rows: Positions) -> set[str]:
        """Return the names of all classes of some rows."""
        used = np.unique(self.of_row[rows]).tolist()
        return {name for meaning in used for name in self.meanings[meaning]}

    def to_labels(self, rows: Positions, class_names: Sequence[str]) -> Labels:
        """Return the labels of some rows: int64 (n,), or of several uint8 (n, classes)."""
        if self.several:
            used, places = np.unique(self.of_row[rows], return_inverse=True)
            meanings = [self.meanings[meaning] for meaning in used.tolist()]
            return label_matrix.of_names(meanings, class_names)[places]
        numbers = {name: number for number, name in enumerate(class_names)}
        of_meanings = [numbers.get(name, -1) for (name,) in self.meanings]
        return np.array(of_meanings, dtype=np.int64)[self.of_row[rows]]

    def class_names(
        self, rows: Rows, parts: Mapping[str, Positions], class_part: str | None
    ) -> tuple[str, ...]:
        """Return the classes: in the order of the table's own names, otherwise sorted.

        Args:
            class_part: the one whose labels are the classes, of which there must be two; None: all.

        Raises:
            UserError: a row of another part has another class, or there are too few.
        """
        shown = [class_part] if class_part else list(parts)
        found = self.classes_of(np.concatenate([parts[part] for part in shown]))
        for part, positions in parts.items():
            unknown = [not found.issuperset(meaning) for meaning in self.meanings]
            wrong = positions[np.array(unknown)[self.of_row[positions]]]
            if len(wrong):
                row = int(wrong[0])
                name = next(n for n in self.meanings[self.of_row[row]] if n not in found)
                raise UserError(
                    f"{rows.where(row)}: the class {describe(name)} is in {part} and has no "
                    f"row in {class_part}"
                )
        if class_part and len(found) < 2:
            all_are = f"all are of {describe(min(found))}" if found else "none has a label"
            raise UserError(
                f"{rows.table}: the rows to train on must be of at least 2 classes; {all_are}"
            )
        if rows.class_names is not None:
            lacking = [name for name in rows.class_names if name not in found]
            if lacking and class_part and rows.has_class_columns:
                raise UserError(
                    f"data.label_column: {rows.table} has no row in {class_part} with 1 in the "
                    f"column {lacking[0]}; leave the column out"
                )
            return tuple(name for name in rows.class_names if name in found)
        if all(re.fullmatch(r"[+-]?[0-9]+", name) for name in found):
            return tuple(sorted(found, key=lambda name: (int(name), name)))
        return tuple(sorted(found))


def read_labels(rows: Rows, *, several: bool) -> RowLabels:
    """Read what the rows say of their classes.

    Raises:
        UserError: a row has no label, or one without a name.
    """
    texts = rows.columns["label"]
    distinct = {text: place for place, text in enumerate(dict.fromkeys(texts))}
    of_text = np.fromiter((distinct[text] for text in texts), np.int64, len(texts))
    first = np.full(len(distinct), len(texts))
    np.minimum.at(first, of_text, np.arange(len(texts)))
    meanings = [
        _meaning(rows, text, int(row), several=several)
        for text, row in zip(distinct, first, strict=True)
    ]
    numbers: dict[tuple[str, ...], int] = {}
    of_distinct = np.array([numbers.setdefault(one, len(numbers)) for one in meanings], np.int64)
    return RowLabels(several, list(numbers), of_distinct[of_text])


def _meaning(rows: Rows, text: str, row: int, *, several: bool) -> tuple[str, ...]:
    """Return the names of the classes that a row's text says."""
    if several and not text.strip():
        return ()
    pieces: Iterable[str] = text.split(SEPARATOR) if several else [text]
    names = {_name(rows, piece, row) for piece in pieces}
    return tuple(sorted(names))


def _name(rows: Rows, text: str, row: int) -> str:
    name, known = normalize_class_name(text), rows.class_names
    if not name:
        raise UserError(f"{rows.where(row)}: has no label")
    if known is None:
        return name
    if not (re.fullmatch(r"[0-9]{1,9}", name) and int(name) < len(known)):
        raise UserError(
            f"{rows.where(row)}: the label {name} has no name; the table has names for 0 to "
            f"{len(known) - 1}"
        )
    return known[int(name)]
