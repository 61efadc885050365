"""List the members of an archive once; a compressed .tar is decompressed into the cache before."""

from __future__ import annotations

import bz2
import gzip
import lzma
import shutil
import time
import zlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy.typing as npt

from trainer.base.array_files import Arrays, read_arrays, write_arrays
from trainer.base.errors import UserError
from trainer.base.files import remove_leftovers, write_file
from trainer.base.locks import lock_file
from trainer.data.pictures.file_states import STATE_DIGITS, is_settled, state_key, state_of
from trainer.data.pictures.packed_names import PackedNames, pack
from trainer.data.pictures.places import Spans
from trainer.data.sources.download import cache_folder
from trainer.data.sources.members import Members
from trainer.data.sources.tar_archive import list_tar
from trainer.data.sources.zip_archive import list_zip
from trainer.data.stored import entries

_COMPRESSED: Mapping[str, Callable[..., Any]] = {
    ".tar.gz": gzip.open,
    ".tgz": gzip.open,
    ".tar.bz2": bz2.open,
    ".tbz2": bz2.open,
    ".tar.xz": lzma.open,
    ".txz": lzma.open,
}
SUFFIXES = (".zip", ".tar", *_COMPRESSED)
"""of archives, in lower case"""

_FORMAT = 1
"""of the lists of members in the cache"""
_CHUNK_BYTES = 2**20


def is_archive(name: str) -> bool:
    """Return whether a file is an archive that can be read, by its name."""
    return name.lower().endswith(SUFFIXES)


def is_tar(name: str) -> bool:
    """Return whether a file is a .tar, compressed or not, by its name."""
    return is_archive(name) and not name.lower().endswith(".zip")


def list_archive(path: Path) -> Members:
    """List the members of an archive, which is read only if it has changed since the last time.

    Raises:
        UserError: it is broken, or has members that cannot be read or that lead out of it; or the
            cache cannot be written.
    """
    if not path.is_file():
        raise UserError(f"data.root: there is no file {path}")
    if path.name.lower().endswith(".zip"):
        columns = remembered(path, path, "members", lambda: _to_columns(list_zip(path)))
        return _to_members(path, path, columns)
    was_there = is_decompressed(path)
    file = decompress(path)
    try:
        columns = remembered(path, file, "members", lambda: _to_columns(list_tar(file, path)))
        members = _to_members(path, file, columns)
        assert members.spans
        return replace(members, spans=replace(members.spans, origins=(f"{path}: ",)))
    except UserError:
        if file != path:
            file.unlink(missing_ok=True)
            if was_there:  # the copy may be damaged, and not the archive
                return list_archive(path)
        raise


def is_decompressed(path: Path) -> bool:
    """Return whether an archive can be read in place, or was decompressed into the cache."""
    return _suffix(path) is None or _decompressed(path).is_file()


def decompress(path: Path) -> Path:
    """Decompress a .tar.gz, .tar.bz2 or .tar.xz into the cache, unless that was done before.

    Returns:
        Where it is; a .tar stays where it is.

    Raises:
        UserError: it is broken, or the cache cannot be written.
    """
    suffix = _suffix(path)
    if suffix is None:
        return path
    target = _decompressed(path)

    def copy(temporary: Path) -> None:
        with _COMPRESSED[suffix](path, "rb") as source, temporary.open("wb") as file:
            shutil.copyfileobj(source, file, _CHUNK_BYTES)

    try:
        entries.use(target.parent, f"{path.parent}: archives")
        without = "processes that start together decompress the same archive, each for itself"
        with lock_file(target.with_suffix(".lock"), f"decompresses {path}", without) as alone:
            if not target.is_file():
                if alone:
                    remove_leftovers(target)
                entries.remove_superseded(target, target.stem[:-STATE_DIGITS])
                write_file(target, copy)
    except (EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile) as error:
        raise _not_whole(path, error) from error
    except OSError as error:
        if error.errno is None:  # bz2 has no type of its own for broken files
            raise _not_whole(path, error) from error
        raise UserError(
            f"{path}: cannot be decompressed into the cache {target.parent} ({error}); make room, "
            "or set XDG_CACHE_HOME to another folder"
        ) from error
    return target


def _not_whole(path: Path, error: Exception) -> UserError:
    return UserError(
        f"{path}: cannot be decompressed ({error}); it may have been cut short; get it again"
    )


def _suffix(path: Path) -> str | None:
    return next((suffix for suffix in _COMPRESSED if path.name.lower().endswith(suffix)), None)


def _decompressed(path: Path) -> Path:
    return _entry_of(path) / f"{path.name.split('.')[0]}-{state_key(path, _FORMAT)}.tar"


def _entry_of(path: Path) -> Path:
    """Return the entry of the cache for all archives in one folder."""
    return cache_folder("archives") / entries.name_of("archives", path.parent)


def remembered(path: Path, file: Path, what: str, read: Callable[[], Arrays]) -> Arrays:
    """Return what is known of an archive as it is noted in the cache; otherwise read and note it.

    Args:
        file: where the members lie: the archive, or what it was decompressed to.
        what: what is known, for the name of the note.
        read: returns it, with `offset_bytes` and `size_bytes` of what lies in `file`.

    Raises:
        UserError: the cache cannot be written.
    """
    index = _entry_of(path) / f"{what}-{state_key(path, _FORMAT)}.npz"
    if index.exists():
        entries.use(index.parent, f"{path.parent}: archives")
    if found := _load(file, index):
        return found
    state, read_ns = state_of(path), time.time_ns()
    columns = read()
    if is_settled(state, read_ns):
        try:
            entries.use(index.parent, f"{path.parent}: archives")
            entries.remove_superseded(index, index.stem[:-STATE_DIGITS])
            write_arrays(index, columns)
        except OSError as error:
            raise UserError(
                f"{path}: its list of members cannot be written into the cache {index.parent} "
                f"({error}); make room, or set XDG_CACHE_HOME to another folder"
            ) from error
    return columns


def _load(file: Path, index: Path) -> Arrays | None:
    """Return what is noted; None if that, or what it is of, is damaged."""
    columns = read_arrays(index)
    if columns is None:
        return None
    end_bytes = (columns["offset_bytes"] + columns["size_bytes"]).max(initial=0)
    return columns if end_bytes <= file.stat().st_size else None


def _to_columns(members: Members) -> Arrays:
    spans, names, folders = members.spans, pack(members.names), pack(sorted(members.folders))
    assert spans
    columns: dict[str, npt.NDArray[Any]] = {
        "names": names.blob,
        "name_ends": names.ends,
        "folders": folders.blob,
        "folder_ends": folders.ends,
        "offset_bytes": spans.offset_bytes,
        "size_bytes": spans.size_bytes,
        "is_deflated": spans.is_deflated,
    }
    return columns if spans.checksums is None else {**columns, "checksums": spans.checksums}


def _to_members(path: Path, file: Path, columns: Arrays) -> Members:
    names = list(PackedNames(columns["names"], columns["name_ends"]))
    folders = frozenset(PackedNames(columns["folders"], columns["folder_ends"]))
    spans = Spans.in_one_file(
        file,
        columns["offset_bytes"],
        columns["size_bytes"],
        columns["is_deflated"],
        columns.get("checksums"),
    )
    return Members(path, names, folders, spans=spans)
