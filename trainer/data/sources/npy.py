"""Folders with four NumPy files: features and targets for training and for testing."""

from __future__ import annotations

import math
import tokenize
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from trainer.base.errors import UserError
from trainer.data.image_file import StoredImages, beyond_limit, store
from trainer.data.sources.source_data import LabelledImages, SourceData

_SUFFIXES = (
    "_train_features.npy",
    "_train_targets.npy",
    "_test_features.npy",
    "_test_targets.npy",
)
_CHUNK_BYTES = 2**24
_LONGEST_HEADER_BYTES = 10_000
# NumPy reads headers with Python's own parser: a hostile one brings up any of these.
_HEADER_ERRORS = (
    ValueError,
    TypeError,
    OverflowError,
    RecursionError,
    MemoryError,
    tokenize.TokenError,
)


def locate(folder: Path) -> list[Path]:
    """The four files: features and targets for training, then those for testing.

    Raises:
        UserError: a file is missing, or the folder holds several sets.
    """
    if not folder.is_dir():
        raise UserError(f"data.root: there is no folder {folder}")
    prefixes = sorted(
        {
            path.name.removesuffix(suffix)
            for suffix in _SUFFIXES
            for path in folder.glob(f"[!.]*{suffix}")
        }
    )
    if len(prefixes) != 1:
        found = f"sets named {', '.join(prefixes)}" if prefixes else "none"
        raise UserError(
            f"data.root: {folder} must hold one set of four files NAME{', NAME'.join(_SUFFIXES)}; "
            f"found {found}"
        )
    paths = [folder / f"{prefixes[0]}{suffix}" for suffix in _SUFFIXES]
    absent = [path.name for path in paths if not path.is_file()]
    if absent:
        raise UserError(f"data.root: {folder} lacks {', '.join(absent)}")
    return paths


def read_folder(folder: Path, limit_bytes: float = math.inf) -> SourceData:
    """Any data set of four NumPy files, in data.root.

    Args:
        limit_bytes: features of more stay in their file.
    """
    train_features, train_targets, test_features, test_targets = locate(folder)
    return SourceData(
        train=_read_part(train_features, train_targets, limit_bytes),
        test=_read_part(test_features, test_targets, limit_bytes),
        class_names=None,
        origin=f"data.root {folder}",
    )


def read_features(
    path: Path, limit_bytes: float = math.inf
) -> npt.NDArray[np.uint8] | StoredImages:
    """Images as uint8 (n, channels, height, width), in memory or, beyond the limit, in the file.

    The file holds (n, height, width) or (n, height, width, channels) with 1 or 3 channels, of any
    type of real number, as long as every value is a whole number from 0 to 255. Those that stay in
    the file are uint8 there, in C order.

    Raises:
        UserError: another shape or type, a value that is no pixel, too many for the memory, or a
            damaged file.
    """
    mapped = _open(path)
    if mapped.size > limit_bytes:
        return _leave(path, _with_channels(mapped, path), mapped.offset, limit_bytes)
    return to_images(mapped, path)


def to_images(values: npt.NDArray[Any], where: Path | str) -> npt.NDArray[np.uint8]:
    """Features in memory as images: uint8 (n, channels, height, width), a copy.

    Args:
        values: as `read_features` describes them.
        where: they come from, for messages.

    Raises:
        UserError: another shape or type, or a value that is no pixel.
    """
    values = _with_channels(values, where)
    pixels = values if values.dtype == np.uint8 else _to_pixels(values, where)
    # A copy in any case: a file is only mapped, and torch wants memory that can be written.
    return np.array(pixels.transpose(0, 3, 1, 2), order="C")


def to_labels(values: npt.NDArray[Any], where: Path | str) -> npt.NDArray[np.integer[Any]]:
    """Targets in memory as labels: integers (n,), a copy.

    Raises:
        UserError: another shape or type.
    """
    if values.ndim != 1 or values.dtype.kind not in "ui":
        raise UserError(
            f"{where}: found the type {values.dtype} and the shape {values.shape}; targets are "
            "integers of one dimension, one class for each image"
        )
    return np.array(values)


def _with_channels(values: npt.NDArray[Any], where: Path | str) -> npt.NDArray[Any]:
    """Features of four dimensions."""
    if values.size == 0:  # its shape may be absurd all the same
        raise UserError(f"{where}: holds no pixels, its shape is {values.shape}")
    if values.ndim == 3:
        values = values[..., None]
    if values.ndim != 4 or values.shape[3] not in (1, 3):
        raise UserError(
            f"{where}: found the shape {values.shape}; features are (images, height, width) or "
            "(images, height, width, channels) with 1 or 3 channels"
        )
    if values.dtype.kind not in "uif":
        raise UserError(f"{where}: found the type {values.dtype}; features are uint8")
    return values


def read_targets(path: Path) -> npt.NDArray[np.integer[Any]]:
    """Labels, integers (n,).

    Raises:
        UserError: another shape or type, or a damaged file.
    """
    return to_labels(_open(path), path)


def _read_part(features: Path, targets: Path, limit_bytes: float) -> LabelledImages:
    images, labels = read_features(features, limit_bytes), read_targets(targets)
    return LabelledImages(images, labels, str(features), str(targets))


def _leave(
    path: Path, values: npt.NDArray[Any], offset_bytes: int, limit_bytes: float
) -> StoredImages:
    """Features that stay in their file, where they have to be what a batch needs."""
    if values.dtype != np.uint8:
        kind = f"have the type {values.dtype}; save them as uint8"
    elif not values.flags.c_contiguous:
        kind = "lie in Fortran order; save them in C order (numpy.ascontiguousarray)"
    else:
        return store(path, offset_bytes, values.shape)
    raise beyond_limit(path, values.size, limit_bytes, kind)


def _open(path: Path) -> np.memmap[Any, Any]:
    """The array, mapped and not yet read: a header that announces too much costs no memory."""
    try:
        _check_header_length(path)
        with np.errstate(over="ignore"):  # an absurd shape is an error of its own
            values = np.lib.format.open_memmap(path, mode="r")
    except (*_HEADER_ERRORS, OSError) as error:
        raise UserError(
            f"{path}: cannot be read as a .npy file, damaged or cut off ({error})"
        ) from error
    expected_bytes = values.offset + values.nbytes
    if path.stat().st_size != expected_bytes:
        raise UserError(
            f"{path}: {path.stat().st_size} bytes long, but its header announces {expected_bytes}"
        )
    return values


def _check_header_length(path: Path) -> None:
    """NumPy refuses a long header too, but only when it has read all of it: up to 4 GiB."""
    with path.open("rb") as file:
        start = file.read(12)
    # Version 1 has two bytes for the length; 2 and 3 have four.
    length = int.from_bytes(start[8:12], "little") if start[6:7] > b"\x01" else 0
    if length > _LONGEST_HEADER_BYTES:
        raise ValueError(f"its header announces {length} bytes for itself")


def _to_pixels(values: npt.NDArray[Any], where: Path | str) -> npt.NDArray[np.uint8]:
    """The values as uint8, after a check that nothing is lost by it."""
    pixels = np.empty(values.shape, dtype=np.uint8)
    step = max(1, _CHUNK_BYTES // max(1, values[:1].nbytes))
    for begin in range(0, len(values), step):
        chunk = np.asarray(values[begin : begin + step])
        # NaN fails every comparison, infinities fail the range.
        wrong = ~((chunk >= 0) & (chunk <= 255) & (np.floor(chunk) == chunk))
        if wrong.any():
            image, row, column, channel = np.argwhere(wrong)[0].tolist()
            raise UserError(
                f"{where}: value {chunk[image, row, column, channel]} at image {begin + image}, "
                f"row {row}, column {column}, channel {channel}; features must be whole numbers "
                "from 0 to 255, not scaled"
            )
        pixels[begin : begin + step] = chunk
    return pixels
