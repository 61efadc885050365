"""Decode picture files, PNG and JPEG among others, of any size."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
import numpy.typing as npt

from trainer.base.errors import UserError
from trainer.config.schema import DataConfig
from trainer.data.pictures import formats, high_bit_depth, resizing
from trainer.data.pictures.bands import Bands, find_bands
from trainer.data.pictures.high_bit_depth import DeepImage, GreyRange
from trainer.data.pictures.places import Place

if TYPE_CHECKING:
    from PIL import Image, ImageFile


SUFFIXES = tuple(
    ".avif .bmp .gif .heic .heif .jfif .jpe .jpeg .jpg .npy .pbm .pgm .png .pnm .ppm .tif .tiff"
    " .webp".split()
)
"""of picture files, in lower case"""

MOST_MEGAPIXELS = DataConfig.max_megapixels
"""of a picture, if nobody has chosen another limit"""

_GREY_MODES = ("1", "L", "LA", "La", "I", "F")
_GREY_STEPS = {"L;2": 85, "L;4": 17}
_TURNED = (5, 6, 7, 8)
"""EXIF orientations that exchange height and width"""

# Pillow's own limit on pixels is the whole process's, and pictures are read by several threads.
_pillow_limit = threading.Lock()


@dataclass(frozen=True)
class ImageInfo:
    """What the image in a picture file is, before it is resized and converted.

    Args:
        height, width: in pixels, upright by its EXIF orientation.
        channels: 1 if it is stored as grey, 3 if in colours; of an array or a TIFF file of many
            bands as many as it has.
        lowest, highest: of its values if it has more than 8 bits a channel, otherwise None.
    """

    height: int
    width: int
    channels: int
    lowest: float | None = None
    highest: float | None = None


def read_info(picture: Place | Path, max_megapixels: int = MOST_MEGAPIXELS) -> ImageInfo:
    """Read the head of a picture file; its pixels may be broken all the same.

    They are read too if the file has more than 8 bits a channel.

    Args:
        max_megapixels: data.max_megapixels.

    Raises:
        UserError: as `decode`.
    """
    place = _place_of(picture)
    with _explain(place), place.open() as stream:
        if found := _find_bands(place, stream, max_megapixels):
            return ImageInfo(found.height, found.width, found.channels)
        file = _open_in(place, stream, max_megapixels)
        # Before the orientation: Pillow may read the pixels to find it.
        is_deep, is_grey = (
            high_bit_depth.is_deep(file),
            file.mode in _GREY_MODES or high_bit_depth.is_grey(file),
        )
        height, width = file.height, file.width
        if formats.read_orientation(file) in _TURNED:
            height, width = width, height
        values = _decode_deep(place).value_range() if is_deep else None
        return ImageInfo(height, width, 1 if is_grey else 3, *(values or (None, None)))


def decode(
    picture: Place | Path,
    channels: int,
    image_size: tuple[int, int],
    grey_range: GreyRange | None = None,
    fit: resizing.Fit = resizing.MIDDLE,
    max_megapixels: int | None = MOST_MEGAPIXELS,
) -> npt.NDArray[np.uint8]:
    """Decode a picture file to the image that a network takes.

    It is opened as `open_upright`, or as `read_bands` if there are not 1 or 3 channels, and, if it
    has another size, resized as `resizing.Fit` says.

    Args:
        image_size: height and width in pixels.
        fit: how the image is made to fit.
        max_megapixels: as of `open_upright`.

    Returns:
        uint8, (channels, height, width).

    Raises:
        UserError: as `open_upright`.
    """
    if channels not in (1, 3):
        bands = resizing.resize(read_bands(picture, channels, max_megapixels), image_size, fit)
        return np.ascontiguousarray(bands.transpose(2, 0, 1))
    image = open_upright(picture, channels, grey_range, max_megapixels=max_megapixels)
    image = resizing.resize_image(image, image_size, fit)
    pixels = np.array(image)
    return pixels[None] if channels == 1 else np.ascontiguousarray(pixels.transpose(2, 0, 1))


def open_upright(
    picture: Place | Path,
    channels: int,
    grey_range: GreyRange | None = None,
    at_least: tuple[int, int] | None = None,
    max_megapixels: int | None = MOST_MEGAPIXELS,
) -> Image.Image:
    """Decode a picture file at its own size.

    It is turned upright by its EXIF orientation; reduced to 8 bits if it has more; laid on white if
    it is transparent; and made grey (ITU-R 601-2 luma) or RGB. Of several images in a file the
    first counts.

    Args:
        channels: 1, grey, or 3, red, green and blue.
        grey_range: the values that become black and white if there are more than 8 bits a channel,
            or signs.
        at_least: a height and width: a JPEG may be shrunk to a half, a quarter or an eighth while
            it is decoded, but not below them.
        max_megapixels: data.max_megapixels; None: no limit, as `read_info` has looked at the size.

    Returns:
        An image of mode L or RGB.

    Raises:
        UserError: names the file that is missing, broken or not a picture, has absurdly many pixels
            (a file of a few bytes may announce many), or loses its contrast by `grey_range`.
    """
    place = _place_of(picture)
    with _explain(place), place.open() as stream:
        if found := _find_bands(place, stream, max_megapixels):
            image = _to_image(place, found, channels)
        else:
            file = _open_in(place, stream, max_megapixels)
            if at_least:
                _shrink_while_decoding(file, at_least)
            image = _on_white(_upright(place, file, grey_range))
        mode = "L" if channels == 1 else "RGB"
        return image if image.mode == mode else image.convert(mode)


def read_bands(
    picture: Place | Path, channels: int, max_megapixels: int | None = MOST_MEGAPIXELS
) -> npt.NDArray[np.uint8]:
    """Read a picture that has neither 1 nor 3 channels, at its own size.

    Args:
        channels: that it must have.
        max_megapixels: as of `open_upright`.

    Returns:
        uint8, (height, width, channels).

    Raises:
        UserError: as `open_upright`; or it has other channels.
    """
    place = _place_of(picture)
    with _explain(place), place.open() as stream:
        found = _find_bands(place, stream, max_megapixels)
        if not found or found.channels != channels:
            has = f"has {found.channels} channels" if found else "has 1 or 3 channels"
            raise UserError(f"{place}: {has}, and should have {channels} channels")
        return found.read()


def _find_bands(place: Place, stream: BinaryIO, max_megapixels: int | None) -> Bands | None:
    try:
        found = find_bands(stream)
    except ImportError as error:
        raise UserError(
            f"{place}: has more channels than red, green, blue and opacity, which needs another "
            "package: pip install 'lockstep-trainer[tiff]'; or save it as .npy"
        ) from error
    if found:
        _check_megapixels(place, found.height * found.width, max_megapixels)
    return found


def _to_image(place: Place, found: Bands, channels: int) -> Image.Image:
    from PIL import Image

    if found.channels not in (1, 3):
        raise UserError(f"{place}: has {found.channels} channels, and should have {channels}")
    pixels = found.read()
    return Image.fromarray(pixels[..., 0] if found.channels == 1 else pixels)


def _place_of(picture: Place | Path) -> Place:
    return picture if isinstance(picture, Place) else Place(picture)


def _open_in(place: Place, stream: BinaryIO, max_megapixels: int | None) -> ImageFile.ImageFile:
    """Open a file that Pillow knows and read its head.

    Args:
        max_megapixels: it must not have more; None: it may have any number.
    """
    file = _open_without_limit(place, stream)
    _check_megapixels(place, file.width * file.height, max_megapixels)
    return file


def _check_megapixels(place: Place, pixels: int, max_megapixels: int | None) -> None:
    if max_megapixels is not None and pixels > max_megapixels * 10**6:
        raise UserError(
            f"{place}: has {pixels / 10**6:,.1f} megapixels; if that is right, allow them: "
            f"data.max_megapixels, which is {max_megapixels} (of predict --max_megapixels)"
        )


@contextmanager
def _explain(place: Place) -> Iterator[None]:
    """Make a `UserError` of whatever is wrong with a file."""
    from PIL import UnidentifiedImageError

    try:
        yield
    except UserError:
        raise
    except FileNotFoundError as error:
        raise UserError(f"{place}: there is no such file") from error
    except PermissionError as error:
        raise UserError(f"{place}: may not be read; give yourself access to it") from error
    except UnidentifiedImageError as error:
        known = ", ".join(formats.NAMES)
        raise UserError(
            f"{place}: is not a picture that can be read (it is of none of the formats {known})"
        ) from error
    except Exception as error:  # Pillow raises errors of any type
        words = str(error) or type(error).__name__
        raise UserError(f"{place}: is not a picture that can be read ({words})") from error


def _open_without_limit(place: Place, stream: BinaryIO) -> ImageFile.ImageFile:
    """Open a file as Pillow does, but without its limit on pixels, which has no key."""
    from PIL import Image

    names: tuple[str, ...] = formats.register()
    if formats.is_heif(stream):
        if not formats.register_heif():
            raise UserError(
                f"{place}: is HEIC, which needs another package: pip install "
                "'lockstep-trainer[heic]'; or convert it to JPEG"
            )
        names = ("HEIF",)
    with _pillow_limit:
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            return Image.open(stream, formats=names)
        finally:
            Image.MAX_IMAGE_PIXELS = limit


def _upright(place: Place, file: ImageFile.ImageFile, grey_range: GreyRange | None) -> Image.Image:
    """Return the image with 8 bits a channel, turned by its EXIF orientation."""
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
    }.get(formats.read_orientation(file))
    image = _decode_deep(place).to_8_bits(grey_range) if is_deep else _load(file, raw_mode)
    return image if turn is None else image.transpose(turn)


def _shrink_while_decoding(file: ImageFile.ImageFile, at_least: tuple[int, int]) -> None:
    """Let libjpeg leave out high frequencies that nobody will see; other formats stay whole."""
    height, width = at_least
    if formats.read_orientation(file) in _TURNED:
        height, width = width, height
    file.draft(None, (width, height))


def _decode_deep(place: Place) -> DeepImage:
    with _explain(place), place.open() as one, place.open() as other:
        file, again = (_open_in(place, stream, None) for stream in (one, other))
        return high_bit_depth.decode(file, again)


def _load(file: ImageFile.ImageFile, raw_mode: str) -> Image.Image:
    file.load()
    if raw_mode in _GREY_STEPS and "transparency" in file.info:
        # Pillow spreads few greys over eight bits, but not the number of the transparent grey.
        file.info["transparency"] *= _GREY_STEPS[raw_mode]
    return file


def _on_white(image: Image.Image) -> Image.Image:
    """Lay a transparent image on white."""
    from PIL import Image

    if not image.has_transparency_data:
        return image
    image = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
