"""Decode picture files, PNG and JPEG among others, of any size."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
import numpy.typing as npt

from trainer.base.errors import UserError
from trainer.config.schema import DataConfig
from trainer.data.pictures import formats, high_bit_depth, jpeg, opening, resizing
from trainer.data.pictures.bands import Bands
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
    place = opening.place_of(picture)
    with opening.explain_errors(place), place.open() as stream:
        if usual := opening.find_usual_jpeg(place, stream, max_megapixels):
            _, head = usual
            return ImageInfo(*head.upright_size, head.channels)
        if found := opening.find_bands(place, stream, max_megapixels):
            return ImageInfo(found.height, found.width, found.channels)
        file = opening.open_with_pillow(place, stream, max_megapixels)
        # Before the orientation: Pillow may read the pixels to find it.
        is_deep, is_grey = (
            high_bit_depth.is_deep(file),
            file.mode in _GREY_MODES or high_bit_depth.is_grey(file),
        )
        height, width = file.height, file.width
        if formats.read_orientation(file) in jpeg.TURNED:
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
    place = opening.place_of(picture)
    with opening.explain_errors(place), place.open() as stream:
        pixels = _decode_usual(place, stream, channels, at_least, max_megapixels)
        if pixels is not None:
            return _as_image(pixels)
        if found := opening.find_bands(place, stream, max_megapixels):
            image = _to_image(place, found, channels)
        else:
            file = opening.open_with_pillow(place, stream, max_megapixels)
            if at_least:
                _shrink_while_decoding(file, at_least)
            image = _on_white(_upright(place, file, grey_range))
        mode = "L" if channels == 1 else "RGB"
        return image if image.mode == mode else image.convert(mode)


def read_upright(
    picture: Place | Path,
    channels: int,
    grey_range: GreyRange | None = None,
    max_megapixels: int | None = MOST_MEGAPIXELS,
) -> npt.NDArray[np.uint8]:
    """Decode a picture file at its own size; arguments and errors as of `open_upright`.

    Returns:
        uint8, (height, width, channels).
    """
    place = opening.place_of(picture)
    with opening.explain_errors(place), place.open() as stream:
        pixels = _decode_usual(place, stream, channels, None, max_megapixels)
    if pixels is None:
        pixels = np.array(open_upright(place, channels, grey_range, None, max_megapixels))
    return pixels.reshape(*pixels.shape[:2], channels)


def _decode_usual(
    place: Place,
    stream: BinaryIO,
    channels: int,
    at_least: tuple[int, int] | None,
    max_megapixels: int | None,
) -> npt.NDArray[np.uint8] | None:
    """Decode a usual JPEG file; None: Pillow has to do it. `stream` is at its beginning again."""
    usual = opening.find_usual_jpeg(place, stream, max_megapixels)
    if usual is None:
        return None
    content, head = usual
    if at_least and all(
        side >= 2 * least for side, least in zip(head.upright_size, at_least, strict=True)
    ):
        return None  # it may be shrunk while it is decoded
    return jpeg.decode(content, head, channels)


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
    place = opening.place_of(picture)
    with opening.explain_errors(place), place.open() as stream:
        found = opening.find_bands(place, stream, max_megapixels)
        if not found or found.channels != channels:
            has = f"has {found.channels} channels" if found else "has 1 or 3 channels"
            raise UserError(f"{place}: {has}, and should have {channels} channels")
        return found.read()


def _to_image(place: Place, found: Bands, channels: int) -> Image.Image:
    if found.channels not in (1, 3):
        raise UserError(f"{place}: has {found.channels} channels, and should have {channels}")
    return _as_image(found.read())


def _as_image(pixels: npt.NDArray[np.uint8]) -> Image.Image:
    """Return an image of mode L or RGB of pixels, (height, width, 1 or 3)."""
    from PIL import Image

    return Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)


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
    if formats.read_orientation(file) in jpeg.TURNED:
        height, width = width, height
    file.draft(None, (width, height))


def _decode_deep(place: Place) -> DeepImage:
    with opening.explain_errors(place), place.open() as one, place.open() as other:
        file, again = (opening.open_with_pillow(place, stream, None) for stream in (one, other))
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
