"""Read usual JPEG files without Pillow: their heads, and, with simplejpeg, their pixels.

Pillow takes as long to prepare for a small photograph as to decode it, and copies its pixels twice.
simplejpeg gives the same pixels, as both use libjpeg-turbo with its exact transform and its smooth
upsampling; that it does is looked at once in each process. What is not usual is left to Pillow:
colours for printers, 12 bits, metadata that are hard to read, files that are broken.
"""

from __future__ import annotations

import functools
import io
import itertools
import struct
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from trainer.data.pictures import formats

Bytes = npt.NDArray[np.uint8]

BEGIN = b"\xff\xd8"
_SIZES = (0xC0, 0xC1, 0xC2)
"""markers of the segment with the size: baseline, extended and progressive coding, by Huffman"""
_SCAN = 0xDA
_METADATA = 0xE1
_OTHER_SEGMENTS = (0xC4, 0xDB, 0xDD, 0xE0, *range(0xE2, 0xF0), 0xFE)
"""markers: tables, the restart interval, what programs leave for themselves, comments"""

TURNED = (5, 6, 7, 8)
"""EXIF orientations that exchange height and width"""


@dataclass(frozen=True)
class Head:
    """What the segments before the pixels of a file say.

    Args:
        height, width: in pixels, as stored.
        channels: 1, grey, or 3, colours.
        orientation: of EXIF, 1 to 8.
    """

    height: int
    width: int
    channels: int
    orientation: int

    @property
    def upright_size(self) -> tuple[int, int]:
        """Height and width, upright."""
        is_turned = self.orientation in TURNED
        return (self.width, self.height) if is_turned else (self.height, self.width)


def read_head(content: bytes) -> Head | None:
    """Read the head of a usual JPEG file; None: it is none, and Pillow has to look at it."""
    size: tuple[int, int, int] | None = None
    metadata: list[bytes] = []
    begin = len(BEGIN)
    if not content.startswith(BEGIN):
        return None
    while begin + 4 <= len(content):
        mark, marker, length = struct.unpack_from(">BBH", content, begin)
        segment = content[begin + 4 : begin + 2 + length]
        if mark != 0xFF or length < 2 or len(segment) < length - 2:
            return None
        if marker == _SCAN:
            orientation = _orientation(metadata)
            return Head(*size, orientation) if size and orientation else None
        if marker in _SIZES and size is None:
            size = _read_size(segment)
            if size is None:
                return None
        elif marker == _METADATA:
            metadata.append(segment)
        elif marker not in _OTHER_SEGMENTS:
            return None
        begin += 2 + length
    return None


def _read_size(segment: bytes) -> tuple[int, int, int] | None:
    """Return height, width and channels."""
    if len(segment) < 6:
        return None
    bits, height, width, channels = struct.unpack_from(">BHHB", segment)
    is_usual = bits == 8 and channels in (1, 3) and len(segment) == 6 + 3 * channels
    return (height, width, channels) if is_usual and height and width else None


def _orientation(metadata: list[bytes]) -> int | None:
    """Return the EXIF orientation; None: it may be somewhere that Pillow knows."""
    if not metadata:
        return 1
    blocks = [one for one in metadata if one.startswith(b"Exif\0\0")]
    found = formats.orientation_in(blocks[0]) if len(blocks) == 1 else None
    return found if found is not None and 1 <= found <= 8 else None


def decode(content: bytes, head: Head, channels: int) -> Bytes | None:
    """Return the pixels of a file, upright: uint8 (height, width, channels).

    None: simplejpeg is not installed, or does not give what Pillow gives.

    Args:
        head: as `read_head` found it.
        channels: that are wanted, 1 or 3.
    """
    if channels < head.channels or not has_equal_bits():
        return None
    pixels = _decode_as_stored(content, channels)
    return None if pixels is None else _turn(pixels, head.orientation)


def _decode_as_stored(content: bytes, channels: int) -> Bytes | None:
    import simplejpeg

    try:
        found: Any = simplejpeg.decode_jpeg(content, "GRAY" if channels == 1 else "RGB")
    except ValueError:  # whatever is wrong with it, Pillow says it, or reads it all the same
        return None
    pixels: Bytes = found
    return pixels


def _turn(pixels: Bytes, orientation: int) -> Bytes:
    if orientation == 1:
        return pixels
    if orientation in TURNED:
        pixels = pixels.swapaxes(0, 1)
    rows = slice(None, None, -1 if orientation in (3, 4, 7, 8) else 1)
    columns = slice(None, None, -1 if orientation in (2, 3, 6, 7) else 1)
    return np.ascontiguousarray(pixels[rows, columns])


@functools.cache
def has_equal_bits() -> bool:
    """Return whether simplejpeg is there and gives the bits of this Pillow, in each sampling."""
    try:
        import simplejpeg  # noqa: F401
    except ImportError:
        return False
    from PIL import Image

    steps = np.arange(35 * 51 * 3, dtype=np.int64)
    noise = (steps * steps * 2654435761 >> 16).astype(np.uint8).reshape(35, 51, 3)
    colours = Image.fromarray(noise)
    for image, sampling in itertools.product((colours, colours.convert("L")), (0, 1, 2)):
        stream = io.BytesIO()
        image.save(stream, "JPEG", quality=85, subsampling=sampling)
        expected = np.array(Image.open(stream, formats=["JPEG"]))
        found = _decode_as_stored(stream.getvalue(), expected.size // (35 * 51))
        if found is None or not np.array_equal(found.reshape(expected.shape), expected):
            return False
    return True
