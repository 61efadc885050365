"""Prepare and read the source that a configuration names."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from trainer.base.errors import UserError
from trainer.config import plugins
from trainer.config.schema import DataConfig
from trainer.data.sources import (
    archive,
    arrow_shards,
    digits,
    idx,
    known,
    listing,
    notes,
    npy,
    prepared_pictures,
    remote,
    table,
    table_columns,
    table_reading,
    user_dataset,
)
from trainer.data.sources.known_sets.published import ArraySet, PictureSet
from trainer.data.sources.known_sets.registry import KNOWN
from trainer.data.sources.picture_index import Contents
from trainer.data.sources.picture_plan import PictureList
from trainer.data.sources.source_data import SourceData, SourceSplit
from trainer.ranks import memory, processes


@contextlib.contextmanager
def _explain_unreadable() -> Iterator[None]:
    """Turn the error of a file or folder that cannot be read into a message."""
    try:
        yield
    except PermissionError as error:
        raise UserError(f"{error.filename}: may not be read; give yourself access to it") from error
    except OSError as error:
        where = error.filename or "data.root"
        raise UserError(f"{where}: cannot be read ({error.strerror or error})") from error


tables_kept = table_reading.rows_kept


@_explain_unreadable()
def prepare(config: DataConfig, *, to_train: bool = True) -> None:
    """Download what is not on this machine, and decode a folder or an archive of pictures.

    One process of each machine calls this first; the others wait for it and then read.

    Args:
        to_train: whether to warn of pictures that are left out of the training.

    Raises:
        UserError: the files are not there; says where they were looked for.
    """
    if config.name in KNOWN:
        known.prepare(KNOWN[config.name], config.root)
    elif config.name == "idx":
        idx.locate(_root(config), "data.root")
    elif config.name == "npy":
        npy.locate(_root(config))
    if config.has_pictures:
        _decode(config, to_train=to_train)


@_explain_unreadable()
def describe_missing(config: DataConfig) -> str | None:
    """Say what `prepare` would download, and where it was looked for; None for nothing.

    Raises:
        UserError: the files are where the user says, but not all of them.
    """
    published = KNOWN.get(config.name)
    if published and known.lacks_files(published, config.root):
        return known.describe_missing(published)
    if config.name in ("folder", "table") and config.root:
        return remote.describe_missing(config.root)
    return None


@_explain_unreadable()
def describe_undecoded(config: DataConfig) -> str | None:
    """Say what `prepare` would decode; None for nothing.

    Raises:
        UserError: the folder or the table is not as it should be.
    """
    if not config.has_pictures:
        return None
    if unlisted := _describe_unlisted(config):
        return unlisted
    return prepared_pictures.describe_undecoded(_list_pictures(config), config)


def _describe_unlisted(config: DataConfig) -> str | None:
    """Say what has to be decompressed or copied before pictures can be listed; None for nothing."""
    published = KNOWN.get(config.name)
    if isinstance(published, PictureSet):
        return known.describe_unlisted(published, config.root)
    if config.name == "folder" and not archive.is_decompressed(root := _root(config)):
        return f"{root}, not decompressed yet; a run does it at its start, into the cache"
    return table.describe_uncopied(_root(config), config) if _is_table(config) else None


@_explain_unreadable()
def look_into_pictures(config: DataConfig) -> None:
    """Note what pictures contain that are on this machine, as far as `prepare` would do it first.

    Where it was done before, or another process does it now, it is left to `prepare`.

    Raises:
        UserError: as `prepare`.
    """
    if not config.has_pictures or notes.index_of(config).exists():
        return
    if not (describe_missing(config) or _describe_unlisted(config)):
        prepared_pictures.look_into(_list_pictures(config), config)


@_explain_unreadable()
def read(config: DataConfig) -> SourceData:
    """Read all images of the source. Never downloads or decodes: see `prepare`.

    Raises:
        UserError: a file is missing, damaged or not what it should be.
    """
    limit_bytes = memory.image_limit_bytes(config.memory_limit_mb)
    if config.has_pictures:
        return prepared_pictures.read(config, limit_bytes)
    published = KNOWN.get(config.name)
    if isinstance(published, ArraySet):
        return known.read(published, config.root, limit_bytes)
    if not plugins.is_built_in("dataset", config.name):
        return user_dataset.read(config)
    if config.name == "idx":
        return idx.read_folder(_root(config), limit_bytes)
    if config.name == "npy":
        return npy.read_folder(_root(config), limit_bytes, several=config.multi_label)
    return digits.read()


@_explain_unreadable()
def read_split(config: DataConfig, split: str) -> SourceSplit | None:
    """Read one split of pictures, whatever the others look like; decode it first.

    Args:
        config: of a source of pictures, with the size and channels of the images.
        split: train, validation or test.

    Returns:
        None if the source has no pictures, or has no such split.

    Raises:
        UserError: the split has no pictures, or a broken one.
    """
    if not config.has_pictures or not _has_part(config, split):
        return None
    return _read_part(config, split)


@_explain_unreadable()
def read_without_parts(config: DataConfig) -> SourceSplit | None:
    """Read all pictures of a source that does not say which are to test on, to evaluate on them.

    Returns:
        None if the source is something else.

    Raises:
        UserError: as `read_split`.
    """
    if _is_table(config):
        is_without_parts = table.is_without_parts(_root(config), config)
    else:
        is_without_parts = config.name == "folder" and listing.is_without_parts(_root(config))
    return _read_part(config, "test") if is_without_parts else None


@_explain_unreadable()
def read_picture_contents(config: DataConfig) -> Contents | None:
    """Return what pictures are before they are made fit; None if the source has no pictures."""
    return prepared_pictures.read_contents(config) if config.has_pictures else None


@_explain_unreadable()
def columns_of_table(config: DataConfig) -> list[str] | None:
    """Return the names of the table's columns; None where the source is no table."""
    if not _is_table(config):
        return None
    if config.root:
        remote.fetch(config.root)
    return table_columns.column_names(_root(config))


@_explain_unreadable()
def column_of_table(config: DataConfig, name: str) -> dict[str, str]:
    """Return what each picture has in a column of the table, by the picture's name."""
    return table_columns.read_column(_root(config), config, name)


def _read_part(config: DataConfig, part: str) -> SourceSplit:
    """Decode and read a part that there is."""
    _decode(config, part)
    limit_bytes = memory.image_limit_bytes(config.memory_limit_mb)
    return prepared_pictures.read_part(config, limit_bytes, part)


def _decode(config: DataConfig, part: str | None = None, *, to_train: bool = True) -> None:
    if processes.launched_local_rank() > 0:
        return  # the first process of the machine has done it, and this one reads its plan
    try:
        if config.name in ("folder", "table"):
            assert config.root, "the rules of a configuration have seen to it"
            remote.fetch(config.root)
        pictures = _list_pictures(config, part)
        prepared_pictures.prepare(pictures, config, part, to_train=to_train)
    except (UserError, OSError):
        prepared_pictures.forget(config, part)  # the others must not read an older plan
        raise


def _list_pictures(config: DataConfig, part: str | None = None) -> PictureList:
    """List the pictures of all parts, as a run needs them, or only those of one."""
    published = KNOWN.get(config.name)
    if isinstance(published, PictureSet):
        return known.list_pictures(published, config.root, part)
    root = _root(config)
    if _is_table(config):
        if part:
            return table.list_part(root, config, part)
        return table.list_pictures(root, config)
    if part:
        return listing.list_part(root, part, several=config.multi_label)
    return listing.list_pictures(root, several=config.multi_label)


def _has_part(config: DataConfig, part: str) -> bool:
    published = KNOWN.get(config.name)
    if isinstance(published, PictureSet):
        return part in published.parts
    if _is_table(config):
        return table.has_part(_root(config), config, part)
    return listing.has_part(_root(config), part)


def _is_table(config: DataConfig) -> bool:
    if config.name == "folder":
        return arrow_shards.has_shards(_root(config))
    return config.name == "table"


def _root(config: DataConfig) -> Path:
    assert config.root, "the rules of a configuration have seen to it"
    return remote.locate(config.root)
