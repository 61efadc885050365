"""List the members of a .zip file, which are read in place."""

from __future__ import annotations

import os
import stat
import struct
import zipfile
from pathlib import Path

import numpy as np

from trainer.base.errors import UserError
from trainer.data.pictures.names import is_picture
from trainer.data.pictures.places import Spans
from trainer.data.sources.members import Members, check_distinct, clean_name, upper_folders

_LOCAL_HEADER = struct.Struct("<4s22xHH")
"""its signature, and the lengths of the name and of the extra field that follow it"""
_ENCRYPTED = 1
"""a flag of a member"""
_METHODS = {9: "Deflate64", 12: "BZIP2", 14: "LZMA", 93: "Zstandard", 95: "XZ", 98: "PPMd"}


def list_zip(path: Path) -> Members:
    """List the members of a .zip file; where they begin is known of the pictures only.

    Raises:
        UserError: it is broken, or has members that cannot be read or that lead out of it.
    """
    try:
        with zipfile.ZipFile(path) as archive, path.open("rb") as file:
            return _list(path, archive.filelist, file.fileno())
    except (zipfile.BadZipFile, NotImplementedError, ValueError, EOFError, struct.error) as error:
        raise UserError(
            f"{path}: is not a whole .zip file ({error}); it may have been cut short; get it again"
        ) from error


def _list(path: Path, infos: list[zipfile.ZipInfo], descriptor: int) -> Members:
    names: list[str] = []
    folders: set[str] = set()
    count = len(infos)
    offsets, sizes = np.zeros(count, np.int64), np.zeros(count, np.int64)
    checksums, deflated = np.zeros(count, np.uint32), np.zeros(count, np.bool_)
    end_bytes = os.fstat(descriptor).st_size
    for info in infos:
        name = clean_name(path, info.filename)
        if name is None:
            continue
        if info.is_dir():
            folders.add(name)
            continue
        if stat.S_ISLNK(info.external_attr >> 16):
            raise UserError(
                f"{path}: the member {name!a} is a link, which is not followed; pack the archive "
                "again with the files themselves"
            )
        if is_picture(name):
            _check_readable(path, name, info)
            number = len(names)
            offsets[number] = _find_content(path, name, info, descriptor, end_bytes)
            sizes[number], checksums[number] = info.compress_size, info.CRC
            deflated[number] = info.compress_type == zipfile.ZIP_DEFLATED
        names.append(name)
    check_distinct(path, names)
    used = slice(len(names))
    return Members(
        path,
        names,
        frozenset(folders | upper_folders(names)),
        spans=Spans.in_one_file(path, offsets[used], sizes[used], deflated[used], checksums[used]),
    )


def _check_readable(path: Path, name: str, info: zipfile.ZipInfo) -> None:
    if info.flag_bits & _ENCRYPTED:
        raise UserError(f"{path}: the member {name!a} is encrypted; pack the archive without")
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        method = _METHODS.get(info.compress_type, f"method {info.compress_type}")
        raise UserError(
            f"{path}: the member {name!a} is compressed by {method}; pack the archive with Deflate "
            "or without compression"
        )


def _find_content(
    path: Path, name: str, info: zipfile.ZipInfo, descriptor: int, end_bytes: int
) -> int:
    """Return where the bytes of a member begin: its local header decides, not the directory."""
    header = os.pread(descriptor, _LOCAL_HEADER.size, max(0, info.header_offset))
    signature = b""
    if len(header) == _LOCAL_HEADER.size:
        signature, name_bytes, extra_bytes = _LOCAL_HEADER.unpack(header)
    if signature != b"PK\3\4":
        raise UserError(
            f"{path}: the member {name!a} is not where the archive says; get the archive again"
        )
    begin = info.header_offset + _LOCAL_HEADER.size + name_bytes + extra_bytes
    if begin + info.compress_size > end_bytes:
        raise UserError(
            f"{path}: the member {name!a} ends beyond the archive, which was cut short; get it "
            "again"
        )
    return int(begin)
