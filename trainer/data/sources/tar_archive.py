"""List the members of a .tar file, which are read in place."""

from __future__ import annotations

import os
import tarfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from trainer.base.errors import UserError
from trainer.data.pictures.places import Spans
from trainer.data.sources.members import Members, check_distinct, clean_name, upper_folders


def list_tar(path: Path, named: Path) -> Members:
    """List the members of a .tar file: ustar, pax or GNU.

    Args:
        named: what it is called in messages: the file that it was decompressed from.

    Raises:
        UserError: it is broken or cut, or has members that cannot be read or that lead out of it.
    """
    names: list[str] = []
    folders: set[str] = set()
    offsets, sizes = [], []
    try:
        with tarfile.open(path, "r:") as archive:
            for info in _read_members(path, named, archive):
                name = clean_name(named, info.name)
                if name is None:
                    continue
                if info.isdir():
                    folders.add(name)
                    continue
                _check_readable(named, name, info)
                names.append(name)
                offsets.append(info.offset_data)
                sizes.append(info.size)
    except (tarfile.TarError, ValueError, EOFError) as error:
        after = f" after the member {names[-1]!a}" if names else ""
        raise UserError(
            f"{named}: is not a whole .tar file ({error}{after}); it may have been cut short; get "
            "it again"
        ) from error
    check_distinct(named, names)
    return Members(
        named,
        names,
        frozenset(folders | upper_folders(names)),
        spans=Spans.in_one_file(path, np.array(offsets, np.int64), np.array(sizes, np.int64)),
    )


def _read_members(path: Path, named: Path, archive: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """Yield the members; `tarfile` takes a broken header for the end, and keeps all members."""
    end_bytes, last = path.stat().st_size, -1
    while (info := archive.next()) is not None:
        archive.members = []  # type: ignore[attr-defined]  # it would keep them all
        if info.offset <= last or info.size < 0:
            raise tarfile.ReadError("a header is broken")
        if info.isreg() and info.offset_data + info.size > end_bytes:
            raise UserError(
                f"{named}: the member {info.name!a} ends beyond the archive, which was cut short; "
                "get it again"
            )
        last = info.offset
        yield info
    with path.open("rb") as file:
        block = os.pread(file.fileno(), tarfile.BLOCKSIZE, archive.offset)
    if block.strip(tarfile.NUL):
        raise tarfile.ReadError("a header is broken")
    if len(block) < tarfile.BLOCKSIZE:
        raise tarfile.ReadError("the block that ends it is missing")


def _check_readable(archive: Path, name: str, info: tarfile.TarInfo) -> None:
    if info.issym() or info.islnk():
        raise UserError(
            f"{archive}: the member {name!a} is a link, which is not followed; pack the archive "
            "again with the files themselves (tar --dereference --hard-dereference)"
        )
    if not info.isreg() or info.issparse():
        kind = "a sparse file" if info.issparse() else "not a regular file"
        raise UserError(f"{archive}: the member {name!a} is {kind}; pack the archive without it")
