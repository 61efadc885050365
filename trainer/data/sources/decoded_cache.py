"""Keep decoded pictures: .npy files of pixels, in a folder that is whole or absent."""

from __future__ import annotations

import json
import os
import platform
import shutil
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from trainer.base.errors import UserError
from trainer.base.files import sync, write_json, write_text
from trainer.data.pictures import decoding
from trainer.data.pictures.parallel import in_parallel
from trainer.data.pictures.places import Place, Places
from trainer.data.raw_images import StoredImages
from trainer.data.sources import npy
from trainer.data.sources.picture_plan import Plan, Target
from trainer.data.stored import entries

_ENTRY = "entry.json"
_PIECE_BYTES = 2**22

Errors = Mapping[int, str]
"""what is wrong with pictures that cannot be decoded, by their position in the plan's part"""


@dataclass(frozen=True)
class DecodedPictures:
    """Pictures that are in the cache.

    Args:
        entry: their folder in the cache.
        errors: for each part.
    """

    entry: Path
    errors: Mapping[str, Errors]

    def positions(self, part: str, count: int) -> npt.NDArray[np.int64]:
        """Return which of a part's planned pictures, `count`, could be decoded."""
        return np.delete(np.arange(count), list(self.errors[part]))

    def name(self, part: str) -> str:
        """Name the images and labels of a part, with when they were written."""
        status = (self.entry / f"{part}.npy").stat()
        return f"{self.entry.name}/{part}/{status.st_mtime_ns}"

    def read(self, part: str, limit_bytes: float) -> npt.NDArray[np.uint8] | StoredImages:
        """Read the images of a part; larger ones than the limit stay in their file.

        Raises:
            UserError: the files are damaged.
        """
        entries.hold(self.entry)
        return npy.read_features(self.entry / f"{part}.npy", limit_bytes)


def load(entry: Path) -> DecodedPictures | None:
    """Return what a folder has, without its pixels; None if it is missing or damaged."""
    try:
        found: dict[str, Any] = json.loads((entry / _ENTRY).read_text(encoding="utf-8"))
        sizes: dict[str, int] = found["size_bytes"]
        if any((entry / name).stat().st_size != size for name, size in sizes.items()):
            return None
        errors = {
            part: {int(position): error for position, error in of_part.items()}
            for part, of_part in found["errors"].items()
        }
        return DecodedPictures(entry, errors)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def is_whole(entry: Path) -> bool:
    """Return whether the pixels have the checksums that they had when they were decoded.

    Entries of older versions have none, and are whole where their sizes are right.
    """
    if load(entry) is None:
        return False
    noted = json.loads((entry / _ENTRY).read_text(encoding="utf-8"))
    return all(
        _checksum(entry / name) == checksum
        for name, checksum in noted.get("pixels_crc32", {}).items()
    )


def _checksum(path: Path) -> int:
    """Return the CRC-32 of the pixels in a .npy file, some megabytes at a time."""
    checksum = 0
    with path.open("rb") as file:
        np.lib.format.read_magic(file)
        np.lib.format.read_array_header_1_0(file)
        while piece := file.read(_PIECE_BYTES):
            checksum = zlib.crc32(piece, checksum)
    return checksum


def write(
    entry: Path, root: Path, plan: Plan, check: Callable[[], None], exclusive: bool
) -> DecodedPictures:
    """Decode the pictures of each part into a new folder, and note those that are broken.

    If two processes do it at the same time, one of them wins.

    Args:
        root: of the pictures, for who looks into the cache.
        check: called at the end; if it raises, nothing is kept.
        exclusive: whether the caller keeps other processes of this machine away, so that unfinished
            folders are left over from killed ones.

    Raises:
        OSError: the folder cannot be written.
    """
    if exclusive:
        for leftover in entry.parent.glob(f".{entry.name}.{platform.node()}.*"):
            shutil.rmtree(leftover)
    temporary = entry.with_name(f".{entry.name}.{platform.node()}.{os.getpid()}")
    temporary.mkdir(parents=True)
    try:
        errors, checksums = {}, {}
        for part, known in plan.parts.items():
            path = temporary / f"{part}.npy"
            errors[part], checksums[path.name] = _write_pixels(
                path, known.listed.places, plan.target
            )
        check()
        sizes = {path.name: path.stat().st_size for path in temporary.iterdir()}
        noted = {"errors": errors, "size_bytes": sizes, "pixels_crc32": checksums}
        write_json(temporary / _ENTRY, noted)
        write_text(temporary / entries.ABOUT, f"{root}: images of {plan.target.describe()}\n")
        if entry.exists() and not load(entry):
            shutil.rmtree(entry)
        try:
            temporary.rename(entry)
            sync(entry.parent)
        except OSError:
            if not load(entry):
                raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    decoded = load(entry)
    assert decoded
    return decoded


def _write_pixels(path: Path, places: Places, target: Target) -> tuple[Errors, int]:
    """Write the pixels one after the other.

    Returns:
        What is wrong with broken pictures, and the CRC-32 of the pixels.
    """

    def decode(place: Place) -> npt.NDArray[np.uint8] | str:
        try:
            pixels = decoding.decode(
                place,
                target.channels,
                target.image_size,
                target.grey_range,
                target.resize,
                max_megapixels=None,
            )
        except UserError as error:
            return str(error)
        return np.ascontiguousarray(pixels.transpose(1, 2, 0))  # as a .npy file has them

    errors: dict[int, str] = {}
    checksum = 0
    with path.open("wb") as file:
        # NumPy pads a header, so that the number of images can grow in its place.
        _write_header(file, len(places), target)
        begin = file.tell()
        for position, pixels in enumerate(in_parallel(decode, places, f"decoding {path.stem}")):
            if isinstance(pixels, str):
                errors[position] = pixels
            else:
                file.write(pixels.data)
                checksum = zlib.crc32(pixels.data, checksum)
        file.seek(0)
        _write_header(file, len(places) - len(errors), target)
        assert file.tell() == begin
    sync(path)
    return errors, checksum


def _write_header(file: IO[bytes], count: int, target: Target) -> None:
    shape = (count, *target.image_size, *([target.channels] if target.channels > 1 else []))
    header = {"descr": "|u1", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)
