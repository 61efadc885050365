"""What a picture is for a run: its pixels, at their own size or shrunk once, or a JPEG of them."""

from __future__ import annotations

import hashlib
import io
from dataclasses import astuple, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from trainer.base.errors import UserError
from trainer.config.schema import DataConfig
from trainer.data.pictures import decoding, formats, opening, resizing
from trainer.data.pictures.high_bit_depth import GreyRange
from trainer.data.pictures.places import Place, ReadPlace

Bytes = npt.NDArray[np.uint8]

_DRAFT_FACTOR = 2
"""libjpeg may shrink a picture to this many times the wanted size: the filter does the rest"""

_VERSION = 1
"""of the bytes that a form gives"""


@dataclass(frozen=True)
class StoredForm:
    """What pictures are stored as; the same bits on any machine.

    Args:
        channels: 1, 3, or as many as each picture has.
        grey_range: the values that become black and white in pictures of more than 8 bits.
        shorter_side: to which a picture is shrunk, in pixels; None: it keeps its size.
        quality: of JPEG; None: pixels as they are.
    """

    channels: int
    grey_range: GreyRange | None
    shorter_side: int | None
    quality: int | None

    def __str__(self) -> str:
        """Return it in words."""
        size = "their own size"
        if self.shorter_side is not None:
            size = f"a shorter side of {self.shorter_side} pixels at the most"
        coding = "pixels" if self.quality is None else f"JPEG of quality {self.quality}"
        return f"{coding} of {size}"

    @property
    def key(self) -> str:
        """What decides on the stored bytes of a picture, besides its own: a hash, hexadecimal."""
        versions = (_VERSION, *formats.decoder_versions())
        return hashlib.sha256(repr((*versions, astuple(self))).encode()).hexdigest()[:16]

    def sizes(self, sizes: npt.NDArray[np.int32]) -> npt.NDArray[np.int64]:
        """Return the stored height and width of pictures of these heights and widths: (n, 2)."""
        original: npt.NDArray[np.int64] = sizes.astype(np.int64)
        if self.shorter_side is None:
            return original
        shorter = original.min(1, keepdims=True)
        shrunk = (2 * original * self.shorter_side + shorter) // (2 * shorter)
        chosen: npt.NDArray[np.int64] = np.where(shorter > self.shorter_side, shrunk, original)
        return chosen

    def most_bytes(self, sizes: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Return how many bytes a picture of a stored size takes at the most, int64 (n,)."""
        pixels: npt.NDArray[np.int64] = sizes.prod(1) * self.channels
        # Noise at the best quality takes more as JPEG than as pixels; the head has some tables.
        return pixels if self.quality is None else 2 * pixels + 2048

    def make(self, place: Place, sha256: bytes, size: tuple[int, int]) -> Bytes:
        """Read a picture and return the bytes that are stored of it: uint8 (k,).

        Args:
            sha256: of the bytes that the picture had when its size was noted.
            size: its stored height and width.

        Raises:
            UserError: names the picture that is broken, or was changed since then.
        """
        content = place.read()
        if hashlib.sha256(content).digest() != sha256:
            raise UserError(f"{place}: was changed since the run began; start again")
        read = ReadPlace(place.file, place.member, origin=place.origin, content=content)
        try:
            return self._encode(read, size)
        except UserError as error:
            raise UserError(
                f"{error}; repair or remove it, or let a run look at all pictures before it begins "
                "and leave such out: data.on_bad: skip"
            ) from error

    def read_pixels(self, picture: Place | Path, max_megapixels: int) -> Bytes:
        """Return the image that is stored of a picture: uint8 (height, width, channels).

        Args:
            max_megapixels: a picture of more million pixels is refused.

        Raises:
            UserError: names the picture that is missing or broken.
        """
        place = opening.place_of(picture)
        with opening.explain_errors(place):
            content = place.read()
        place = ReadPlace(place.file, place.member, origin=place.origin, content=content)
        info = decoding.read_info(place, max_megapixels)
        (height, width) = self.sizes(np.array([[info.height, info.width]]))[0].tolist()
        return self.pixels(self._encode(place, (height, width)), (height, width))

    def _encode(self, place: Place, size: tuple[int, int]) -> Bytes:
        """Return the bytes that are stored of a picture, whose size was looked at."""
        if self.channels not in (1, 3):
            bands = decoding.read_bands(place, self.channels, max_megapixels=None)
            return resizing.resize(bands, size, resizing.Fit("stretch")).reshape(-1)
        height, width = size
        shrinks = self.shorter_side is not None
        at_least = (_DRAFT_FACTOR * height, _DRAFT_FACTOR * width) if shrinks else None
        if not shrinks and self.quality is None:
            return decoding.read_upright(
                place, self.channels, self.grey_range, max_megapixels=None
            ).reshape(-1)
        image = decoding.open_upright(
            place, self.channels, self.grey_range, at_least, max_megapixels=None
        )
        image = resizing.resize_image(image, size, resizing.Fit("stretch"))
        if self.quality is None:
            return np.array(image).reshape(-1)
        stream = io.BytesIO()
        image.save(stream, "JPEG", quality=self.quality)
        return np.frombuffer(stream.getvalue(), dtype=np.uint8)

    def pixels(self, stored: Bytes, size: tuple[int, int]) -> Bytes:
        """Return the image in stored bytes: uint8 (height, width, channels)."""
        if self.quality is not None:
            place = ReadPlace(Path("a stored JPEG"), content=stored.tobytes())
            stored = decoding.read_upright(place, self.channels, None, max_megapixels=None)
        return stored.reshape(*size, self.channels)


def quality_of(config: DataConfig) -> int | None:
    """Return the quality of the JPEG that pictures are encoded as; None: they are pixels."""
    return config.store_quality if config.store_format == "jpeg" else None


def form_of(config: DataConfig, channels: int, grey_range: GreyRange | None) -> StoredForm:
    """Return the stored form of a configuration.

    Args:
        channels, grey_range: as chosen for the pictures to train on.

    Raises:
        UserError: there is no JPEG of so many channels.
    """
    quality = quality_of(config)
    if quality is not None and channels not in (1, 3):
        raise UserError(
            f"data.store_format: JPEG has 1 or 3 channels, and the pictures {channels}; use pixels"
        )
    return StoredForm(channels, grey_range, config.store_size, quality)
