"""Read the rows of a table, however it is stored."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import replace
from pathlib import Path

from trainer.base.errors import UserError
from trainer.config.schema import DataConfig
from trainer.data.sources import arrow_file, arrow_shards, delimited, remote
from trainer.data.sources.table_rows import Rows

_kept: ContextVar[list[tuple[Path, DataConfig, Rows]] | None] = ContextVar("kept", default=None)
"""the last table with what it was read for; None: nothing is kept, as rows take much memory"""


@contextlib.contextmanager
def rows_kept() -> Iterator[None]:
    """Keep the rows of the last table inside, so that none is read twice."""
    token = _kept.set([])
    try:
        yield
    finally:
        _kept.reset(token)


def read_rows(table: Path, config: DataConfig) -> Rows:
    """Read the rows of a table.

    Raises:
        UserError: the table cannot be read, or lacks a column.
    """
    kept = _kept.get()
    for path, read_for, rows in kept or ():
        if (path, read_for) == (table, config):
            return rows
        if (path, without_weights(read_for)) == (table, config):
            others = dict(rows.columns)
            others.pop("weight", None)
            return replace(rows, columns=others)
    rows = _read_rows(table, config)
    if kept is not None:
        kept[:] = [(table, config, rows)]
    return rows


def _read_rows(table: Path, config: DataConfig) -> Rows:
    if table.suffix.lower() in delimited.SUFFIXES:
        return delimited.read_rows(table, config)
    if table.is_dir() or table.suffix.lower() in arrow_file.SUFFIXES:
        rows = arrow_shards.read_rows(table, config)
        if not rows.inside and config.root and remote.is_address(config.root):
            raise UserError(
                f"data.root: {config.root} names pictures outside of the table, and only the table "
                "is downloaded; use a table with the pictures inside, or download both"
            )
        return rows
    known = ", ".join((*delimited.SUFFIXES, *arrow_file.SUFFIXES))
    raise UserError(f"data.root: a table ends in one of {known}; found {table}")


def without_weights(config: DataConfig) -> DataConfig:
    """Return the configuration for images that nothing is drawn from."""
    return replace(config, sampling="uniform")
