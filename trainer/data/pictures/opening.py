"""Open picture files, whatever their format, and say in words what is wrong with them."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from trainer.base.errors import UserError
from trainer.data.pictures import bands, formats, jpeg
from trainer.data.pictures.bands import Bands
from trainer.data.pictures.places import Place

if TYPE_CHECKING:
    from PIL import ImageFile


class UnknownFormatError(UserError):
    """A file is of no format that pictures are read from."""


class TooManyPixelsError(UserError):
    """A picture has more pixels than are allowed."""


# Pillow's own limit on pixels is the whole process's, and pictures are read by several threads.
_pillow_limit = threading.Lock()


def place_of(picture: Place | Path) -> Place:
    """Return where a picture is."""
    return picture if isinstance(picture, Place) else Place(picture)


@contextmanager
def explain_errors(place: Place) -> Iterator[None]:
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
        with place.open() as stream:
            if not stream.read(1):
                raise UnknownFormatError(
                    f"{place}: is not a picture that can be read (it is empty, of 0 bytes)"
                ) from error
        known = ", ".join(formats.NAMES)
        raise UnknownFormatError(
            f"{place}: is not a picture that can be read (it is of none of the formats {known})"
        ) from error
    except Exception as error:  # Pillow raises errors of any type
        words = str(error) or type(error).__name__
        raise UserError(f"{place}: is not a picture that can be read ({words})") from error


def open_with_pillow(
    place: Place, stream: BinaryIO, max_megapixels: int | None
) -> ImageFile.ImageFile:
    """Open a file that Pillow knows and read its head.

    Args:
        max_megapixels: it must not have more; None: it may have any number.
    """
    file = _open_without_limit(place, stream)
    check_megapixels(place, file.width * file.height, max_megapixels)
    return file


def check_megapixels(place: Place, pixels: int, max_megapixels: int | None) -> None:
    """Raise `TooManyPixelsError` if a picture has more than are allowed; None: any number."""
    if max_megapixels is not None and pixels > max_megapixels * 10**6:
        raise TooManyPixelsError(
            f"{place}: has {pixels / 10**6:,.1f} megapixels; if that is right, allow them: "
            f"data.max_megapixels, which is {max_megapixels} (of predict --max_megapixels)"
        )


def _open_without_limit(place: Place, stream: BinaryIO) -> ImageFile.ImageFile:
    """Open a file as Pillow does, but without its limit on pixels, which has no key."""
    from PIL import Image

    names: tuple[str, ...] = formats.register()
    if formats.is_heif(stream):
        if not formats.register_heif():
            raise UnknownFormatError(
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


def find_usual_jpeg(
    place: Place, stream: BinaryIO, max_megapixels: int | None
) -> tuple[bytes, jpeg.Head] | None:
    """Return the bytes of a usual JPEG file and its head; None: it is none.

    `stream` is at its beginning again.
    """
    content = b""
    if stream.read(len(jpeg.BEGIN)) == jpeg.BEGIN:
        stream.seek(0)
        content = stream.read()
    stream.seek(0)
    head = jpeg.read_head(content)
    if head is None:
        return None
    check_megapixels(place, head.height * head.width, max_megapixels)
    return content, head


def find_bands(place: Place, stream: BinaryIO, max_megapixels: int | None) -> Bands | None:
    """Return what is in a file of many bands; None: it is none."""
    try:
        found = bands.find_bands(stream)
    except ImportError as error:
        raise UserError(
            f"{place}: has more channels than red, green, blue and opacity, which needs another "
            "package: pip install 'lockstep-trainer[tiff]'; or save it as .npy"
        ) from error
    if found:
        check_megapixels(place, found.height * found.width, max_megapixels)
    return found
