"""Open Pillow's formats without what Pillow does with their metadata (EXIF).

Pillow computes a resolution while it opens JPEG and TIFF, and writes the metadata of an image that
it turns. Both fail on entries of odd types, in files whose pixels are whole. Here the one entry
that matters, the orientation, is read; the others are neither used nor written.
"""

from __future__ import annotations

import contextlib
import functools
import struct
from importlib import metadata
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    from PIL import Image

# Not all that Pillow knows: it passes EPS to another program. Content decides, not a file's name.
NAMES = ("AVIF", "BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")

DECODERS = ("Pillow", "jpeg", "webp", "avif", "pillow-heif", "tifffile")
"""those whose versions count"""

_HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
"""of files as phones write them; the last two are also of AVIF files that do not say so"""

_ORIENTATION = 0x0112
_RESOLUTIONS = (0x011A, 0x011B)
_SHORT = 3
"""a type of entries, of 16 bits"""


@functools.cache
def register() -> tuple[str, ...]:
    """Register our readers of JPEG and TIFF; return the names of all formats for `Image.open`."""
    from PIL import Image, JpegImagePlugin, TiffImagePlugin

    class Jpeg(JpegImagePlugin.JpegImageFile):
        def _read_dpi_from_exif(self) -> None:
            pass

    class Tiff(TiffImagePlugin.TiffImageFile):
        def _setup(self) -> None:
            for tag in (_ORIENTATION, *_RESOLUTIONS):
                del self.tag_v2[tag]
            super()._setup()

        def load_end(self) -> None:
            pass  # Pillow would turn the image

    Image.init()
    ours = {"JPEG": Jpeg, "TIFF": Tiff}
    for name, factory in ours.items():
        _, accept = Image.OPEN[name]
        Image.register_open(f"LOCKSTEP_{name}", factory, accept)
    return tuple(f"LOCKSTEP_{name}" if name in ours else name for name in NAMES)


def is_heif(stream: BinaryIO) -> bool:
    """Return whether a file is HEIC by its first bytes; `stream` is at its beginning again."""
    head = stream.read(12)
    stream.seek(0)
    return head[4:8] == b"ftyp" and head[8:12] in _HEIF_BRANDS


@functools.cache
def register_heif() -> bool:
    """Register the reader of HEIC under the name HEIF; return whether there is one."""
    try:
        import pillow_heif
    except ImportError:
        return False
    pillow_heif.register_heif_opener(thumbnails=False, decode_threads=1)
    return True


def decoder_versions() -> list[str | None]:
    """Return the versions of DECODERS, which make pixels of the bytes of a picture."""
    import PIL
    from PIL import features

    codecs = [features.version(name) for name in ("jpg", "webp", "avif")]
    return [PIL.__version__, *codecs, *map(_version, ("pillow-heif", "tifffile"))]


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def read_orientation(file: Image.Image) -> int:
    """Return the EXIF orientation, 1 to 8; 1, as stored, if there is none that can be read.

    Call it before the pixels are read.
    """
    exif = file.info.get("exif")
    # Pillow stops at the first entry whose length is wrong, and warns of others.
    found: object = orientation_in(exif) if isinstance(exif, bytes) else None
    if not found:
        # Broken metadata is ignored; the pixels are complete nevertheless.
        with contextlib.suppress(Exception):
            found = file.getexif().get(_ORIENTATION)
    return found if isinstance(found, int) and 1 <= found <= 8 else 1


def orientation_in(exif: bytes) -> int | None:
    """Return the tag in the first directory of an EXIF block, which is built as a TIFF file."""
    while exif.startswith(b"Exif\0\0"):
        exif = exif[6:]
    order = {b"II": "<", b"MM": ">"}.get(exif[:2])
    if order is None or len(exif) < 8:
        return None
    (start,) = struct.unpack_from(f"{order}I", exif, 4)
    (count,) = struct.unpack(f"{order}H", exif[start : start + 2].ljust(2, b"\0"))
    first = start + 2
    for place in range(first, min(first + 12 * count, len(exif) - 11), 12):
        tag, kind, _, short = struct.unpack_from(f"{order}HHIH", exif, place)
        if tag == _ORIENTATION:
            return short if kind == _SHORT else None
    return None
