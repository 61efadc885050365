"""Any column of a table, also one that says nothing about how pictures are used."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from trainer.config.schema import DataConfig
from trainer.data.sources import arrow_shards, delimited, table, table_reading


def column_names(path: Path) -> list[str]:
    """Return the names of a table's columns."""
    if path.suffix.lower() in delimited.SUFFIXES:
        return delimited.column_names(path)
    return arrow_shards.column_names(path)


def read_column(path: Path, config: DataConfig, name: str) -> dict[str, str]:
    """Return what each picture has in a column, as text, by the picture's name in lists.

    Raises:
        UserError: the table is not as it should be.
    """
    # A column of weights may be of any type, and is text until something is drawn by it.
    rows = table_reading.read_rows(path, replace(config, sampling="weights", weight_column=name))
    names = rows.columns["file"] if rows.inside else table.names_of(rows)
    return dict(zip(names, rows.columns["weight"], strict=True))
