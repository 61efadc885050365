"""Pillow's formats, without what Pillow itself does with the notes about a picture.

Pillow computes a resolution while it opens JPEG and TIFF, and writes the notes of a picture that it
turns. Both fail on notes of odd types, in files whose pixels are whole. Here the one note that
matters, the orientation, is read, and nothing is computed from the others or written.
"""

from __future__ import annotations

import contextlib
import functools
import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL import Image

# What a file's content is tried for, whatever its name. Not all that Pillow knows: it hands EPS to
# another program.
NAMES = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")

_ORIENTATION = 0x0112
_RESOLUTIONS = (0x011A, 0x011B)
_SHORT = 3
"""a type of notes, of 16 bits"""


@functools.cache
def formats() -> tuple[str, ...]:
    """The names of these formats for `Image.open`; some are registered with Pillow here."""
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
            pass  # where Pillow turns the picture

    Image.init()
    ours = {"JPEG": Jpeg, "TIFF": Tiff}
    for name, factory in ours.items():
        _, accept = Image.OPEN[name]
        Image.register_open(f"LOCKSTEP_{name}", factory, accept)
    return tuple(f"LOCKSTEP_{name}" if name in ours else name for name in NAMES)


def orientation(file: Image.Image) -> int:
    """What the EXIF tag says, 1 to 8; 1, as it is stored, where there is no tag that can be read.

    Must be asked for before the pixels are read.
    """
    notes = file.info.get("exif")
    # Pillow reads no further than the first note that lies about its length, and warns of others.
    found: object = _orientation_in(notes) if isinstance(notes, bytes) else None
    if not found:
        # Notes that cannot be read say nothing; the picture is whole all the same.
        with contextlib.suppress(Exception):
            found = file.getexif().get(_ORIENTATION)
    return found if isinstance(found, int) and 1 <= found <= 8 else 1


def _orientation_in(notes: bytes) -> int | None:
    """The tag in the first directory of an EXIF block, which is that of a TIFF file."""
    while notes.startswith(b"Exif\0\0"):
        notes = notes[6:]
    order = {b"II": "<", b"MM": ">"}.get(notes[:2])
    if order is None or len(notes) < 8:
        return None
    (start,) = struct.unpack_from(f"{order}I", notes, 4)
    (count,) = struct.unpack(f"{order}H", notes[start : start + 2].ljust(2, b"\0"))
    first = start + 2
    for place in range(first, min(first + 12 * count, len(notes) - 11), 12):
        tag, kind, _, short = struct.unpack_from(f"{order}HHIH", notes, place)
        if tag == _ORIENTATION:
            return short if kind == _SHORT else None
    return None
