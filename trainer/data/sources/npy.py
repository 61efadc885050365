"""Read folders with four NumPy files: features and targets for training and for testing."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from trainer.base.errors import UserError
from trainer.data.raw_images import StoredImages, memory_limit_error, open_images
from trainer.data.sources.source_data import LabelledImages, SourceData

_SUFFIXES = [
    f"_{part}_{what}.npy" for part in ("train", "test") for what in ("features", "targets")
]
_CHUNK_BYTES = 2**24
_FEW_CHANNELS = 4
"""an axis of so few is rather that of the channels than the height"""


def locate(folder: Path) -> list[Path]:
    """Find the four files: features and targets for training, then those for testing.

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


def read_folder(
    folder: Path, limit_bytes: float = math.inf, *, several: bool = False
) -> SourceData:
    """Read any data set of four NumPy files, in data.root.

    Args:
        limit_bytes: a file with more bytes of features stays on the disk.
        several: whether an image may have several labels.
    """
    paths = locate(folder)
    train, test = (
        LabelledImages(
            read_features(features, limit_bytes),
            read_targets(targets, several=several),
            str(features),
            str(targets),
        )
        for features, targets in (paths[:2], paths[2:])
    )
    return SourceData(train, test, class_names=None, origin=f"data.root {folder}")


def read_features(
    path: Path, limit_bytes: float = math.inf
) -> npt.NDArray[np.uint8] | StoredImages:
    """Read images as uint8 (n, channels, height, width); beyond the limit leave them in the file.

    The shape in the file is (n, height, width) or (n, height, width, channels), the type any real
    number, as long as every value is a whole number from 0 to 255. Images that stay in
    the file must be uint8 in C order.

    Raises:
        UserError: another shape or type, a value that is not a pixel, too many images for the
            memory, or a damaged file.
    """
    mapped = _open(path)
    if mapped.size <= limit_bytes:
        return to_images(mapped, path)
    values = _with_channels(mapped, path)
    if values.dtype != np.uint8:
        problem = f"have the type {values.dtype}; save them as uint8"
    elif not values.flags.c_contiguous:
        problem = "are in Fortran order; save them in C order (numpy.ascontiguousarray)"
    else:
        return open_images(path, mapped.offset, values.shape)
    raise memory_limit_error(path, values.size, limit_bytes, problem)


def to_images(values: npt.NDArray[Any], where: Path | str) -> npt.NDArray[np.uint8]:
    """Copy features in memory as images: uint8 (n, channels, height, width).

    Args:
        values: as `read_features` describes them.
        where: their file or variable, for messages.

    Raises:
        UserError: another shape or type, or a value that is not a pixel.
    """
    values = _with_channels(values, where)
    pixels = values if values.dtype == np.uint8 else _to_pixels(values, where)
    # A copy in any case: a file is only mapped, and torch wants memory that can be written.
    return np.array(pixels.transpose(0, 3, 1, 2), order="C")


def to_labels(
    values: npt.NDArray[Any], where: Path | str, *, several: bool = False
) -> npt.NDArray[np.integer[Any]]:
    """Copy targets in memory as labels: integers (n,), or of several uint8 (n, classes).

    Raises:
        UserError: another shape or type, or of several another value than 0 and 1.
    """
    if several:
        return _to_matrix(values, where)
    if values.ndim != 1 or values.dtype.kind not in "ui":
        columns = values.ndim == 2 and values.dtype.kind in "bui"
        raise UserError(
            f"{where}: found the type {values.dtype} and the shape {values.shape}; targets are "
            "integers of one dimension, one class for each image"
            + "; a column of 0 and 1 for each class needs data.multi_label: true"
            * columns
        )
    return np.array(values)


def _to_matrix(values: npt.NDArray[Any], where: Path | str) -> npt.NDArray[np.uint8]:
    if values.ndim != 2 or values.shape[1] < 2 or values.dtype.kind not in "buif":
        raise UserError(
            f"{where}: found the type {values.dtype} and the shape {values.shape}; where "
            "data.multi_label is true targets are 0 or 1, (images, classes), of 2 classes or more"
        )
    wrong = ~np.isin(values, (0, 1))
    if wrong.any():
        image, label = np.argwhere(wrong)[0].tolist()
        raise UserError(
            f"{where}: value {values[image, label]} at image {image}, class {label}; where "
            "data.multi_label is true targets are 0 or 1"
        )
    return np.array(values, dtype=np.uint8)


def _with_channels(values: npt.NDArray[Any], where: Path | str) -> npt.NDArray[Any]:
    """Check the shape and the type, and add the channel axis if it is missing."""
    if values.size == 0:
        raise UserError(f"{where}: has no pixels, its shape is {values.shape}")
    if values.ndim == 3:
        values = values[..., None]
    if values.ndim != 4:
        raise UserError(
            f"{where}: found the shape {values.shape}; features are (images, height, width) or "
            "(images, height, width, channels)"
        )
    if values.shape[1] <= _FEW_CHANNELS < values.shape[3]:
        raise UserError(
            f"{where}: found the shape {values.shape}, which looks like channels before height and "
            "width; features are (images, height, width, channels): numpy.moveaxis(x, 1, 3)"
        )
    if values.dtype.kind not in "uif":
        raise UserError(f"{where}: found the type {values.dtype}; features are uint8")
    return values


def read_targets(path: Path, *, several: bool = False) -> npt.NDArray[np.integer[Any]]:
    """Read labels, as `to_labels` returns them.

    Raises:
        UserError: as `to_labels`, or a damaged file.
    """
    return to_labels(_open(path), path, several=several)


def _open(path: Path) -> np.memmap[Any, Any]:
    """Map the array, without reading it: a header that announces too much costs no memory."""
    try:
        values = np.load(path, mmap_mode="r", allow_pickle=False)
        if not isinstance(values, np.memmap):
            raise ValueError("it is an archive")
    except Exception as error:  # NumPy parses the header as Python: damage can raise anything
        raise UserError(
            f"{path}: cannot be read as a .npy file, damaged or cut off ({error})"
        ) from error
    expected_bytes = values.offset + values.nbytes
    if path.stat().st_size != expected_bytes:
        raise UserError(
            f"{path}: {path.stat().st_size} bytes long, but its header announces {expected_bytes}"
        )
    return values


def _to_pixels(values: npt.NDArray[Any], where: Path | str) -> npt.NDArray[np.uint8]:
    """Convert the values to uint8, after a check that nothing is lost."""
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
