"""Read pictures of any number of channels: arrays in .npy files, and TIFF files of many bands.

Pillow has no mode for them; of a TIFF file of five bands it shows the first three.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]

_NPY = b"\x93NUMPY"
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_BITS, _PHOTOMETRIC, _SAMPLES, _EXTRA_SAMPLES = 258, 262, 277, 338
"""tags of a TIFF file"""
_GREYS, _RGB, _SEPARATED = (0, 1), 2, 5
_MOST_OF_PILLOW = {_SEPARATED: 5}
"""channels, with opacity; of others 4"""
_UNSPECIFIED = 0
"""what an extra sample means: not opacity"""


@dataclass(frozen=True)
class Bands:
    """A picture whose pixels nobody has read.

    Args:
        height, width: in pixels.
        channels: how many numbers a pixel has.
        read: returns uint8, (height, width, channels); raises ValueError if the file is broken.
    """

    height: int
    width: int
    channels: int
    read: Callable[[], Pixels]


def find_bands(stream: BinaryIO) -> Bands | None:
    """Return what a file is that Pillow cannot read right; None for any other file.

    Args:
        stream: at the beginning, where it is again if the answer is None.

    Raises:
        ValueError: it is such a file, but not of 8 bits, or cut short.
        ImportError: it is a TIFF file of many bands, and tifffile is not installed.
    """
    head = stream.read(8)
    stream.seek(0)
    if head.startswith(_NPY):
        return _find_array(stream)
    if head.startswith(_TIFF) and _has_many_bands(stream):
        return _find_tiff(stream)
    stream.seek(0)
    return None


def _find_array(stream: BinaryIO) -> Bands:
    version = np.lib.format.read_magic(stream)
    read_header: Any = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }.get(version)
    if read_header is None:
        raise ValueError(f"it has the version {version[0]}.{version[1]} of the format .npy")
    shape, in_fortran_order, dtype = read_header(stream)
    if dtype != np.uint8 or len(shape) not in (2, 3) or 0 in shape:
        raise ValueError(
            f"it has the type {dtype} and the shape {shape}; a picture is uint8 of (height, width) "
            "or (height, width, channels)"
        )
    begin, size_bytes = stream.tell(), math.prod(shape)
    found_bytes = stream.seek(0, 2) - begin
    if found_bytes != size_bytes:
        raise ValueError(f"it has {found_bytes} bytes of pixels and should have {size_bytes}")

    def read() -> Pixels:
        stream.seek(begin)
        values = np.frombuffer(stream.read(size_bytes), np.uint8)
        pixels = values.reshape(shape, order="F" if in_fortran_order else "C")
        return np.ascontiguousarray(pixels[..., None] if pixels.ndim == 2 else pixels)

    return Bands(shape[0], shape[1], (*shape, 1)[2], read)


def _has_many_bands(stream: BinaryIO) -> bool:
    """Return whether a TIFF file has channels besides grey, RGB, CMYK and opacity."""
    from PIL.TiffImagePlugin import ImageFileDirectory_v2

    head = stream.read(8)
    if head[2:3] == b"+":  # BigTIFF
        head += stream.read(8)
    tags = ImageFileDirectory_v2(head)
    stream.seek(tags.next)
    tags.load(stream)
    samples, photometric = tags.get(_SAMPLES, 1), tags.get(_PHOTOMETRIC, _RGB)
    is_deep = max(tags.get(_BITS, (1,))) > 8
    if samples > _MOST_OF_PILLOW.get(photometric, 4):
        return True
    colours = 1 if photometric in _GREYS else _MOST_OF_PILLOW.get(photometric, 4) - 1
    # Pillow reads these in part, if at all; those of 16 bits are three colours, and it has no more.
    extra = tags.get(_EXTRA_SAMPLES) or (_UNSPECIFIED,)
    return samples > colours and _UNSPECIFIED in extra and not is_deep


def _find_tiff(stream: BinaryIO) -> Bands:
    from tifffile import TiffFile

    stream.seek(0)
    page = TiffFile(stream).pages.first
    axes, shape = page.axes, dict(zip(page.axes, page.shape, strict=True))
    if page.dtype != np.uint8 or sorted(axes) != sorted("YXS"):
        raise ValueError(
            f"it has the type {page.dtype} and the shape {page.shape}; pictures of many bands must "
            "have 8 bits a channel"
        )

    def read() -> Pixels:
        order = [axes.index(axis) for axis in "YXS"]
        pixels: Pixels = np.ascontiguousarray(page.asarray().transpose(order))
        return pixels

    return Bands(shape["Y"], shape["X"], shape["S"], read)
