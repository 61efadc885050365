"""Reading the source that a configuration names; without torch, so while torch is imported."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from trainer.base.errors import UserError
from trainer.config import plugins
from trainer.config.schema import DataConfig
from trainer.data.pictures.decoding import ImageInfo
from trainer.data.sources import digits, folder, idx, known, npy, picture_list, user_dataset
from trainer.data.sources.source_data import SourceData, SourcePart


@contextlib.contextmanager
def _forbidden_is_mendable() -> Iterator[None]:
    """Folders that may not be entered: a message instead of a traceback."""
    try:
        yield
    except PermissionError as error:
        raise UserError(f"{error.filename}: may not be read; give yourself access to it") from error


@_forbidden_is_mendable()
def prepare(config: DataConfig) -> None:
    """Make sure that the files are at hand: known sets are downloaded, folders decoded.

    One process of a machine calls this first, the others wait for it and then read.

    Raises:
        UserError: the files are not there; says where they were looked for.
    """
    if config.name in known.KNOWN:
        known.prepare(known.KNOWN[config.name], config.root)
    elif config.name == "idx":
        idx.locate(_root(config), "data.root")
    elif config.name == "npy":
        npy.locate(_root(config))
    elif config.name == "folder":
        folder.prepare(_root(config), config)


@_forbidden_is_mendable()
def to_download(config: DataConfig) -> str | None:
    """What `prepare` would have to download, and where it was looked for; None for nothing.

    Raises:
        UserError: the files are where the user says, but not all of them.
    """
    found = known.KNOWN.get(config.name)
    return known.not_found(found) if found and known.lacks_files(found, config.root) else None


@_forbidden_is_mendable()
def describe_undecoded(config: DataConfig) -> str | None:
    """What `prepare` would have to decode, in words; None for nothing.

    Raises:
        UserError: the folder is not laid out as it should be.
    """
    return folder.describe_undecoded(_root(config), config) if config.name == "folder" else None


@_forbidden_is_mendable()
def read(config: DataConfig) -> SourceData:
    """Everything that the source has. Never downloads or decodes: see `prepare`.

    Raises:
        UserError: a file is missing, damaged or not what it should be.
    """
    if config.name in known.KNOWN:
        return known.read(known.KNOWN[config.name], config.root)
    if config.name not in plugins.BUILT_IN["dataset"]:
        return user_dataset.read(config)
    limit_bytes = config.memory_limit_mb * 10**6
    if config.name == "idx":
        return idx.read_folder(_root(config), limit_bytes)
    if config.name == "npy":
        return npy.read_folder(_root(config), limit_bytes)
    if config.name == "folder":
        return folder.read(_root(config), config, limit_bytes)
    return digits.read()


@_forbidden_is_mendable()
def has_part(config: DataConfig, part: str) -> bool:
    """Whether `read_part` can read a part, whatever there is beside it."""
    return config.name == "folder" and picture_list.has_part(_root(config), part)


@_forbidden_is_mendable()
def read_part(config: DataConfig, part: str) -> SourcePart:
    """One part of a folder of pictures, decoded where it was not; the others are not looked at.

    Args:
        config: of a folder, with the size and channels of the images.
        part: train, validation or test; one that `has_part`.

    Raises:
        UserError: it holds no pictures, or a broken one.
    """
    root = _root(config)
    folder.prepare(root, config, part)
    return folder.read_part(root, config, config.memory_limit_mb * 10**6, part)


@_forbidden_is_mendable()
def read_picture_infos(config: DataConfig) -> Mapping[str, ImageInfo]:
    """Sizes and channels of picture files before they are made fit; none where there are none."""
    return folder.read_picture_infos(_root(config), config) if config.name == "folder" else {}


def read_ahead(config: DataConfig) -> Callable[[], SourceData]:
    """Begin to read in a thread, as far as that goes without `prepare`.

    Returns:
        `read`, which takes what the thread has found and starts again where it has failed: then
        the error comes up, or the files are there by now.
    """
    found: list[SourceData] = []

    def begin() -> None:
        with contextlib.suppress(Exception):  # it is met again, by whoever asks
            found.append(read(config))

    def finish() -> SourceData:
        thread.join()
        return found.pop() if found else read(config)

    # The imports of scikit-learn and of users' code must not cross that of torch; a folder may have
    # to be decoded first.
    if config.name in ("digits", "folder") or plugins.is_own("dataset", config.name):
        return lambda: read(config)
    thread = threading.Thread(target=begin, daemon=True)
    thread.start()
    return finish


def _root(config: DataConfig) -> Path:
    assert config.root, "the rules of a configuration have seen to it"
    return Path(config.root).expanduser()
