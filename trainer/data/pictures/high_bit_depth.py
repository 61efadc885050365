"""Pictures with more than eight bits a channel, or with signs: their values, and 8 bits of them.

Their values mean nothing by themselves: 12 bits in a 16-bit file, floats from 0 to 1 and the signed
numbers of a CT are all usual. So all such pictures of a run are seen through one range of values,
whose lower end becomes black and whose upper end white.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from PIL import Image, ImageFile

GreyRange = tuple[float, float]
"""values that become black and white"""

_MOST_BEYOND = 0.9
"""of the values of a picture: with more it counts in another unit than the others"""

_PHOTOMETRIC, _BITS, _PLANAR, _SAMPLE_FORMAT = 262, 258, 284, 339
"""tags of a TIFF file"""
_UNSIGNED, _SIGNED = 1, 2
_NATIVE = {
    **dict.fromkeys(("I;16S", "I;16BS"), "I;16NS"),
    **dict.fromkeys(("I;32S", "I;32BS"), "I;32NS"),
    **dict.fromkeys(("F;32F", "F;32BF"), "F;32NF"),
}
_COLOURS = ("RGB", "RGBA", "RGBX")


@dataclass(frozen=True, eq=False)
class DeepPicture:
    """The values of a picture as they are stored.

    Args:
        values: real numbers, (height, width) or, of colours, (height, width, 3).
        is_visible: bool, (height, width), where it is not wholly transparent.
        opacity: uint8, (height, width); None where nothing is transparent.
        white_is_lowest: whether lower values are brighter.
    """

    values: npt.NDArray[Any]
    is_visible: npt.NDArray[np.bool_]
    opacity: npt.NDArray[np.uint8] | None
    white_is_lowest: bool

    def span(self) -> GreyRange | None:
        """The lowest and the highest value that is visible; None where nothing is.

        Raises:
            ValueError: some are NaN or infinite.
        """
        visible = self.values[self.is_visible]
        if not np.isfinite(visible).all():
            raise ValueError("it has values that are NaN or infinite")
        return (float(visible.min()), float(visible.max())) if visible.size else None

    def to_picture(self, seen: GreyRange | None) -> Image.Image:
        """Eight bits of it: L, RGB, or RGBA where something is transparent.

        Args:
            seen: values that become black and white; those between them keep their order and
                distances, those beyond become black or white.

        Raises:
            ValueError: there is no such range, or all values would become one.
        """
        from PIL import Image

        span = self.span()
        own = span or (0.0, 0.0)
        if span is None:
            seen = own  # all of it becomes white
        if seen is None:
            raise ValueError(
                f"it has values from {own[0]:g} to {own[1]:g} instead of 8 bits a channel, and "
                "none of the pictures to train on has such values, so nothing says which are "
                "black and white; save it with 8 bits, or train with data.grey_range"
            )
        low, high = seen
        shades = self.values.astype(np.float64)
        shades -= low  # in place, as a picture may be large
        shades /= (high - low) or 1.0
        self._check_left(shades[self.is_visible], own, seen)
        shades.clip(0, 1, out=shades)
        shades *= 255
        pixels = np.rint(shades, out=shades).astype(np.uint8)
        if self.white_is_lowest:
            pixels = 255 - pixels
        picture = Image.fromarray(pixels)
        if self.opacity is not None:
            picture = picture.convert("RGB")
            picture.putalpha(Image.fromarray(self.opacity))
        return picture

    @staticmethod
    def _check_left(shades: npt.NDArray[np.float64], own: GreyRange, seen: GreyRange) -> None:
        """Enough of the contrast must be left.

        Args:
            shades: of all visible values, 0 for black and 1 for white.
            own: the lowest and the highest of the values.
        """
        if own[0] == own[1]:
            return
        words = (
            f"as {seen[0]:g} is black and {seen[1]:g} is white by the pictures to train on or by "
            "data.grey_range"
        )
        ends = np.rint(255 * np.array([shades.min(), shades.max()]).clip(0, 1))
        if ends[0] == ends[1]:
            raise ValueError(
                f"its values from {own[0]:g} to {own[1]:g} would all become one, {words}"
            )
        for beyond in (shades[shades < 0], shades[shades > 1]):
            if beyond.size > _MOST_BEYOND * shades.size and beyond.min() < beyond.max():
                raise ValueError(
                    f"of its values from {own[0]:g} to {own[1]:g} {beyond.size / shades.size:.0%} "
                    f"would become one, {words}"
                )


def is_deep(file: ImageFile.ImageFile) -> bool:
    """Whether an opened file has more than eight bits a channel, or signs; pixels are not read."""
    if file.mode == "F" or file.mode.startswith("I"):
        return True
    if file.format == "TIFF":
        signed = file.mode == "L" and _SIGNED in _tag(file, _SAMPLE_FORMAT)
        return signed or (file.mode != "1" and max(_tag(file, _BITS)) > 8)
    if file.format == "PPM":
        return _highest(file) > 255
    return file.format == "PNG" and ";16" in raw_mode(file)


def is_grey(file: ImageFile.ImageFile) -> bool:
    """Whether a file of more than eight bits is stored as grey, whatever Pillow makes of it."""
    return file.mode.startswith("I;16") or raw_mode(file).startswith("LA;16")


def decode(file: ImageFile.ImageFile, again: ImageFile.ImageFile) -> DeepPicture:
    """The values of a deep file.

    Args:
        file: opened, its pixels not yet read.
        again: the same, opened once more, as Pillow gives 16 bits of colours only by halves.

    Raises:
        ValueError: its values cannot be had.
    """
    opacity = None
    if file.mode == "F" or file.mode.startswith("I") or file.mode == "L":
        values = _grey(file)
    elif file.format == "PPM":
        values = _coloured_ppm(file)
    else:
        values = _colours(file, again)
        if values.shape[2] in (2, 4):
            opacity = (values[..., -1] // 256).astype(np.uint8)
            values = values[..., :-1]
        values = values[..., 0] if values.shape[2] == 1 else values
    is_visible = np.ones(values.shape[:2], np.bool_) if opacity is None else opacity > 0
    transparent = file.info.get("transparency") if file.format == "PNG" else None
    if transparent is not None and opacity is None:
        alike = values == np.asarray(transparent)
        is_visible = ~(alike.all(2) if alike.ndim == 3 else alike)
        opacity = is_visible.astype(np.uint8) * 255
    white_is_lowest = file.format == "TIFF" and _tag(file, _PHOTOMETRIC) == (0,)
    return DeepPicture(values, is_visible, opacity, white_is_lowest)


def _grey(file: ImageFile.ImageFile) -> npt.NDArray[Any]:
    highest = _highest(file) if file.format == "PPM" else 0
    if file.tile[0].codec_name == "libtiff":
        # It hands over this machine's order of bytes, which Pillow forgets where there are signs.
        name = raw_mode(file)
        _read_as(file, _NATIVE.get(name, name))
    values = np.asarray(file)
    if file.format == "TIFF":
        # Pillow has no mode of its own for these, and hands over their bits.
        if file.mode == "I" and _UNSIGNED in _tag(file, _SAMPLE_FORMAT, (_UNSIGNED,)):
            return values.view(np.uint32)
        if file.mode == "L":
            return values.view(np.int8)
    # Of the highest value that a PPM file names Pillow has made 65535.
    return np.rint(values * (highest / 65535)) if highest else values


def _colours(file: ImageFile.ImageFile, again: ImageFile.ImageFile) -> npt.NDArray[np.uint16]:
    """16 bits of two to four channels, (height, width, channels), of which Pillow keeps eight."""
    name, _, order = raw_mode(file).partition(";16")
    if name == "LA":  # as wide as RGBA of 8 bits
        _read_as(file, "RGBA")
        halves = np.asarray(file).astype(np.uint16)
        return halves[..., ::2] * 256 + halves[..., 1::2]
    is_planar = file.format == "TIFF" and 2 in _tag(file, _PLANAR)
    if name not in _COLOURS or is_planar or order not in ("B", "L", "N"):
        kind = "channels one after the other" if is_planar else f"channels {name or file.mode}"
        raise ValueError(f"it has {kind} of more than 8 bits; save it as RGB or with 8 bits")
    # In the other order of bytes the lower half stands where Pillow looks for the upper one.
    native = "B" if sys.byteorder == "little" else "L"
    other = {"B": "L", "L": "B", "N": native}[order]
    _read_as(again, f"{name};16{other}")
    upper, lower = (np.asarray(one).astype(np.uint16) for one in (file, again))
    return upper * 256 + lower


def _coloured_ppm(file: ImageFile.ImageFile) -> npt.NDArray[np.uint16]:
    tile, stream = file.tile[0], file.fp
    if tile.codec_name != "ppm" or stream is None:
        raise ValueError("it has colours of more than 8 bits, as text; save it as PNG")
    stream.seek(tile.offset)
    content = stream.read(file.width * file.height * 6)
    return np.frombuffer(content, ">u2").reshape(file.height, file.width, 3).astype(np.uint16)


def _highest(file: ImageFile.ImageFile) -> int:
    """The highest value that a PPM file names, where it is no usual one."""
    arguments = file.tile[0].args
    return int(arguments[1]) if isinstance(arguments, tuple) and file.mode != "F" else 0


def raw_mode(file: ImageFile.ImageFile) -> str:
    """Pillow's name of how the pixels lie in the file."""
    arguments = file.tile[0].args if file.tile else ""
    return str(arguments[0] if isinstance(arguments, tuple) else arguments)


def _read_as(file: ImageFile.ImageFile, raw_mode: str) -> None:
    for number, tile in enumerate(file.tile):
        old = tile.args
        args = (raw_mode, *old[1:]) if isinstance(old, tuple) else raw_mode
        file.tile[number] = tile._replace(args=args)


def _tag(file: ImageFile.ImageFile, tag: int, default: tuple[int, ...] = (0,)) -> tuple[int, ...]:
    found: Any = file.tag_v2.get(tag, default)  # type: ignore[attr-defined]
    return found if isinstance(found, tuple) else (found,)
