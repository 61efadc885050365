"""Reading picture files, PNG and JPEG among others, of any size."""

from __future__ import annotations

import struct
import threading
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from trainer.errors import UserError

if TYPE_CHECKING:
    from PIL import Image

SUFFIXES = tuple(".bmp .gif .jpeg .jpg .pbm .pgm .png .pnm .ppm .tif .tiff .webp".split())
"""of files that are taken for pictures, in lower case"""

# What a file's content is tried for, whatever its name. Not all that Pillow knows: it hands EPS to
# another program.
_FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
_GREY_MODES = ("1", "L", "LA", "La", "I", "F")
_ORIENTATION = 0x0112
_LYING = (5, 6, 7, 8)
"""EXIF orientations that exchange height and width"""

# Pillow's ways to say that a file is broken.
_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    TypeError,
    LookupError,
    OverflowError,
    struct.error,
    zlib.error,
)

# The filters of warnings are the whole process's, and pictures are read by several threads.
_warning_filters = threading.Lock()


@dataclass(frozen=True)
class Look:
    """What a picture is before it is made fit.

    Args:
        height, width: in pixels, upright by its EXIF orientation.
        channels: 1 where it is stored as grey, else 3.
    """

    height: int
    width: int
    channels: int


def look(path: Path) -> Look:
    """What the head of a picture file says; its pixels may be broken all the same.

    Raises:
        UserError: as `read`.
    """
    with _opened(path) as file:
        height, width = file.height, file.width
        # Of a TIFF file Pillow gives the upright size.
        if file.format != "TIFF" and file.getexif().get(_ORIENTATION) in _LYING:
            height, width = width, height
        grey = file.mode in _GREY_MODES or file.mode.startswith("I;16")
        return Look(height, width, 1 if grey else 3)


def read(path: Path, channels: int, image_size: tuple[int, int]) -> npt.NDArray[np.uint8]:
    """A picture as a network takes it.

    It is turned upright by its EXIF orientation; laid on white where it is transparent; made grey
    (ITU-R 601-2 luma) or RGB; and, where it has another size, stretched to this one by Pillow's
    antialiased bilinear filter. Of several pictures in a file the first is taken.

    Args:
        channels: 1, grey, or 3, red, green and blue.
        image_size: height and width in pixels.

    Returns:
        uint8, (channels, height, width).

    Raises:
        UserError: names the file that is missing, broken or no picture, or has absurdly many
            pixels (Pillow's limit against decompression bombs).
    """
    from PIL import Image

    height, width = image_size
    with _opened(path) as file:
        picture = _upright(file).convert("L" if channels == 1 else "RGB")
        if picture.size != (width, height):
            picture = picture.resize((width, height), Image.Resampling.BILINEAR)
        pixels = np.array(picture)
    return pixels[None] if channels == 1 else np.ascontiguousarray(pixels.transpose(2, 0, 1))


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """The file, of which only the head has been read; whatever is wrong with it is named."""
    from PIL import Image, UnidentifiedImageError

    try:
        # Given a name, Pillow maps the file, and takes the size of a turned TIFF for that in it.
        with path.open("rb") as stream:
            with _warning_filters, warnings.catch_warnings():
                warnings.simplefilter("error", Image.DecompressionBombWarning)
                file = Image.open(stream, formats=_FORMATS)
            yield file
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise UserError(f"{path}: {error}") from error
    except FileNotFoundError as error:
        raise UserError(f"{path}: there is no such file") from error
    except UnidentifiedImageError as error:
        formats = ", ".join(_FORMATS)
        raise UserError(
            f"{path}: is no picture that can be read (it is of none of the formats {formats})"
        ) from error
    except _ERRORS as error:
        raise UserError(f"{path}: is no picture that can be read ({error})") from error


def _upright(file: Image.Image) -> Image.Image:
    """Turned, of 8 bits, and without transparency."""
    from PIL import Image, ImageOps

    file.load()  # by which Pillow turns TIFF itself, and must not be asked to turn it before
    picture = ImageOps.exif_transpose(file)
    if picture.mode.startswith("I;16") or picture.mode == "I":
        grey = np.asarray(picture, np.uint32) // 256  # 16 bits a pixel
        return Image.fromarray(grey.clip(0, 255).astype(np.uint8))
    if not picture.has_transparency_data:
        return picture
    picture = picture.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
