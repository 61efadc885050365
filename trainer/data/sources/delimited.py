"""Read tables of text, CSV and TSV."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING

import numpy as np

from trainer.base.errors import UserError
from trainer.config.schema import DataConfig
from trainer.data.sources.table_rows import (
    Role,
    Rows,
    choose_columns,
    class_columns,
    join_flags,
)

if TYPE_CHECKING:
    from _csv import Reader

SUFFIXES = (".csv", ".tsv")

_UTF16 = (b"\xff\xfe", b"\xfe\xff")
_DELIMITERS = {".csv": ",;\t", ".tsv": "\t"}
"""the first of them that the header has; programs in some languages put semicolons into a CSV"""


def read_rows(path: Path, config: DataConfig) -> Rows:
    """Read a table in UTF-8, with a header; fields may be quoted, and empty lines do not count.

    The files that it names are relative to its folder.

    Raises:
        UserError: the table cannot be read, or lacks a column; names the line.
    """
    lines: list[int] = []
    class_names = class_columns(config)
    with _open(path) as file:
        try:
            delimiter, reader, header = _start(file, path)
            chosen = choose_columns(config, header, path)
            places = {role: header.index(name) for role, name in chosen.items()}
            columns: dict[Role, list[str]] = {role: [] for role in places}
            flag_places = [header.index(name) for name in class_names or ()]
            if class_names:
                columns["label"] = []
            for row in reader:
                if not any(row):
                    continue
                if len(row) != len(header):
                    raise UserError(
                        f"{path}, line {reader.line_num}: has {len(row)} fields, and the header "
                        f"{len(header)}; a field with a {_in_words(delimiter)} inside stands in "
                        "quotes"
                    )
                lines.append(reader.line_num)
                for role, place in places.items():
                    columns[role].append(row[place])
                if class_names:
                    where = f"{path}, line {reader.line_num}"
                    flags = [row[place] for place in flag_places]
                    columns["label"].append(join_flags(flags, class_names, where))
        except csv.Error as error:
            raise UserError(f"{path}, line {reader.line_num}: {error}") from error
    if not lines:
        raise UserError(f"{path}: has a header, and no rows")
    numbers = np.array(lines)
    return Rows(
        path,
        columns,
        path.parent,
        lambda row: f"{path}, line {numbers[row]}",
        class_names,
        has_class_columns=class_names is not None,
    )


def column_names(path: Path) -> list[str]:
    """Return the names of a table's columns.

    Raises:
        UserError: as `read_rows`.
    """
    with _open(path) as file:
        try:
            return _start(file, path)[2]
        except csv.Error as error:
            raise UserError(f"{path}: {error}") from error


def _start(file: IO[str], path: Path) -> tuple[str, Reader, list[str]]:
    """Return what separates the fields, the reader of the rows, and the header before them."""
    first = next((line for line in file if line.strip()), "")
    delimiter = next((one for one in _DELIMITERS[path.suffix.lower()] if one in first), ",")
    file.seek(0)
    reader = csv.reader(file, delimiter=delimiter, skipinitialspace=True, strict=True)
    header = [name.strip() for name in next(filter(any, reader), [])]
    if not header:
        raise UserError(f"{path}: is empty; its first line names the columns")
    return delimiter, reader, header


@contextmanager
def _open(path: Path) -> Iterator[IO[str]]:
    """Open a table; a mark of byte order at its beginning is left out."""
    try:
        with path.open("rb") as binary:
            if binary.read(2) in _UTF16:
                raise UserError(f"{path}: is in UTF-16; save it as UTF-8")
        with path.open(encoding="utf-8-sig", newline="") as file:
            yield file
    except UnicodeDecodeError as error:
        wrong = error.object[error.start : error.end]
        raise UserError(
            f"{path}: is not in UTF-8, it has the bytes {wrong.hex(' ')}; save it as UTF-8"
        ) from error
    except IsADirectoryError as error:
        raise UserError(f"data.root: {path} is a folder") from error
    except FileNotFoundError as error:
        raise UserError(f"data.root: there is no file {path}") from error


def _in_words(delimiter: str) -> str:
    return {",": "comma", ";": "semicolon", "\t": "tab"}[delimiter]
