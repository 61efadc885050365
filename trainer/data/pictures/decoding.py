"""Reading picture files, PNG and JPEG among others, of any size."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from trainer.base.errors import UserError
from trainer.data.pictures import formats, high_bit_depth
from trainer.data.pictures.high_bit_depth import DeepPicture, GreyRange

if TYPE_CHECKING:
    from PIL import Image, ImageFile

SUFFIXES = tuple(".bmp .gif .jpeg .jpg .pbm .pgm .png .pnm .ppm .tif .tiff .webp".split())
"""of files that are taken for pictures, in lower case"""

_GREY_MODES = ("1", "L", "LA", "La", "I", "F")
_GREY_STEPS = {"L;2": 85, "L;4": 17}
_LYING = (5, 6, 7, 8)
"""EXIF orientations that exchange height and width"""

# The filters of warnings are the whole process's, and pictures are read by several threads.
_warning_filters = threading.Lock()


@dataclass(frozen=True)
class ImageInfo:
    """What a picture is before it is made fit.

    Args:
        height, width: in pixels, upright by its EXIF orientation.
        channels: 1 where it is stored as grey, else 3.
        lowest, highest: of its values, where it has more than 8 bits a channel; else None.
    """

    height: int
    width: int
    channels: int
    lowest: float | None = None
    highest: float | None = None


def read_info(path: Path) -> ImageInfo:
    """What the head of a picture file says; its pixels may be broken all the same.

    Of more than 8 bits a channel the pixels are read too.

    Raises:
        UserError: as `read`.
    """
    with _opened(path) as file:
        # Before the notes are asked for: Pillow may read the pixels to find them.
        is_deep, is_grey = (
            high_bit_depth.is_deep(file),
            file.mode in _GREY_MODES or high_bit_depth.is_grey(file),
        )
        height, width = file.height, file.width
        if formats.orientation(file) in _LYING:
            height, width = width, height
        span = _deep(path).span() if is_deep else None
        return ImageInfo(height, width, 1 if is_grey else 3, *(span or (None, None)))


def decode(
    path: Path, channels: int, image_size: tuple[int, int], seen: GreyRange | None = None
) -> npt.NDArray[np.uint8]:
    """A picture as a network takes it.

    It is turned upright by its EXIF orientation; made to 8 bits where it has more; laid on white
    where it is transparent; made grey (ITU-R 601-2 luma) or RGB; and, where it has another size,
    stretched to this one by Pillow's antialiased bilinear filter. Of several pictures in a file the
    first is taken.

    Args:
        channels: 1, grey, or 3, red, green and blue.
        image_size: height and width in pixels.
        seen: of more than 8 bits a channel, or with signs, the values that become black and white.

    Returns:
        uint8, (channels, height, width).

    Raises:
        UserError: names the file that is missing, broken or no picture, has absurdly many pixels
            (Pillow's limit against decompression bombs), or has values of which `seen` says
            nothing or makes a single one.
    """
    from PIL import Image

    height, width = image_size
    with _opened(path) as file:
        picture = _on_white(_upright(path, file, seen)).convert("L" if channels == 1 else "RGB")
        if picture.size != (width, height):
            picture = picture.resize((width, height), Image.Resampling.BILINEAR)
        pixels = np.array(picture)
    return pixels[None] if channels == 1 else np.ascontiguousarray(pixels.transpose(2, 0, 1))


@contextmanager
def _opened(path: Path) -> Iterator[ImageFile.ImageFile]:
    """The file, of which only the head has been read; whatever is wrong with it is named."""
    from PIL import Image, UnidentifiedImageError

    try:
        with path.open("rb") as stream:
            with _warning_filters, warnings.catch_warnings():
                warnings.simplefilter("error", Image.DecompressionBombWarning)
                file = Image.open(stream, formats=formats.formats())
            yield file
    except UserError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise UserError(f"{path}: {error}") from error
    except FileNotFoundError as error:
        raise UserError(f"{path}: there is no such file") from error
    except PermissionError as error:
        raise UserError(f"{path}: may not be read; give yourself access to it") from error
    except UnidentifiedImageError as error:
        known = ", ".join(formats.NAMES)
        raise UserError(
            f"{path}: is no picture that can be read (it is of none of the formats {known})"
        ) from error
    except Exception as error:  # Pillow has no type of its own for what is wrong with a file
        words = str(error) or type(error).__name__
        raise UserError(f"{path}: is no picture that can be read ({words})") from error


def _upright(path: Path, file: ImageFile.ImageFile, seen: GreyRange | None) -> Image.Image:
    """Of 8 bits a channel, and turned by its EXIF orientation."""
    from PIL.Image import Transpose

    is_deep, raw_mode = (
        high_bit_depth.is_deep(file),
        high_bit_depth.raw_mode(file),
    )  # as in `read_info`
    turn = {
        2: Transpose.FLIP_LEFT_RIGHT,
        3: Transpose.ROTATE_180,
        4: Transpose.FLIP_TOP_BOTTOM,
        5: Transpose.TRANSPOSE,
        6: Transpose.ROTATE_270,
        7: Transpose.TRANSVERSE,
        8: Transpose.ROTATE_90,
    }.get(formats.orientation(file))
    picture = _deep(path).to_picture(seen) if is_deep else _loaded(file, raw_mode)
    return picture if turn is None else picture.transpose(turn)


def _deep(path: Path) -> DeepPicture:
    with _opened(path) as file, _opened(path) as again:
        return high_bit_depth.decode(file, again)


def _loaded(file: ImageFile.ImageFile, raw_mode: str) -> Image.Image:
    file.load()
    if raw_mode in _GREY_STEPS and "transparency" in file.info:
        # Pillow spreads few greys over eight bits, but not the number of the transparent one.
        file.info["transparency"] *= _GREY_STEPS[raw_mode]
    return file


def _on_white(picture: Image.Image) -> Image.Image:
    """Without transparency."""
    from PIL import Image

    if not picture.has_transparency_data:
        return picture
    picture = picture.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
