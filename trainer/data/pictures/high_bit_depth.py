"""Read pictures with more than eight bits a channel, or with signs, and make 8 bits of them.

Their values mean nothing by themselves: 12 bits in a 16-bit file, floats from 0 to 1 and the signed
numbers of a CT are all usual. So all such pictures of a run are mapped by one range of values,
whose lower end becomes black and whose upper end becomes white.
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

_MOST_CLIPPED = 0.9
"""of the values of an image: with more, it is in another unit than the others"""

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
class DeepImage:
    """The values of an image as they are stored.

    Args:
        values: real numbers, (height, width) or, of colours, (height, width, 3).
        opacity: uint8, (height, width); None if nothing is transparent.
        white_is_lowest: whether lower values are brighter.
    """

    values: npt.NDArray[Any]
    opacity: npt.NDArray[np.uint8] | None
    white_is_lowest: bool

    def value_range(self) -> GreyRange | None:
        """Return the lowest and the highest value that is visible; None if nothing is.

        Raises:
            ValueError: some are NaN or infinite.
        """
        visible = self._visible(self.values)
        if not np.isfinite(visible).all():
            raise ValueError("it has values that are NaN or infinite")
        return (float(visible.min()), float(visible.max())) if visible.size else None

    def to_8_bits(self, grey_range: GreyRange | None) -> Image.Image:
        """Return the image in mode L, RGB or, if something is transparent, RGBA.

        Args:
            grey_range: the values that become black and white; those between them keep their order
                and distances, those beyond become black or white.

        Raises:
            ValueError: there is no such range, or too much of the contrast would be lost.
        """
        from PIL import Image

        found = self.value_range()
        if found is None:
            found = grey_range = (0.0, 0.0)  # all of it becomes white
        if grey_range is None:
            raise ValueError(
                f"it has values from {found[0]:g} to {found[1]:g} instead of 8 bits a channel, and "
                "none of the pictures to train on has such values, so nothing says which are "
                "black and white; save it with 8 bits, or train with data.grey_range"
            )
        low, high = grey_range
        shades = self.values.astype(np.float64)
        shades -= low  # in place, as a picture may be large
        shades /= (high - low) or 1.0
        _check_contrast(self._visible(shades), found, grey_range)
        shades.clip(0, 1, out=shades)
        shades *= 255
        pixels = np.rint(shades, out=shades).astype(np.uint8)
        if self.white_is_lowest:
            pixels = 255 - pixels
        image = Image.fromarray(pixels)
        if self.opacity is not None:
            image = image.convert("RGB")
            image.putalpha(Image.fromarray(self.opacity))
        return image

    def _visible(self, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        return values if self.opacity is None else values[self.opacity > 0]


def _check_contrast(
    shades: npt.NDArray[np.float64], found: GreyRange, grey_range: GreyRange
) -> None:
    """Make sure that enough of the contrast is left.

    Args:
        shades: all visible values, 0 for black and 1 for white.
        found: the lowest and the highest of the values.
    """
    if found[0] == found[1]:
        return
    values = f"its values from {found[0]:g} to {found[1]:g}"
    reason = (
        f"as {grey_range[0]:g} is black and {grey_range[1]:g} is white by the pictures to train on "
        "or by data.grey_range"
    )
    ends = np.rint(255 * np.array([shades.min(), shades.max()]).clip(0, 1))
    if ends[0] == ends[1]:
        raise ValueError(f"{values} would all become one, {reason}")
    for clipped in (shades[shades < 0], shades[shades > 1]):
        if clipped.size > _MOST_CLIPPED * shades.size and clipped.min() < clipped.max():
            share = clipped.size / shades.size
            raise ValueError(f"of {values} {share:.0%} would become one, {reason}")


def is_deep(file: ImageFile.ImageFile) -> bool:
    """Return whether an open file has more than eight bits a channel, or signs; reads no pixels."""
    if file.mode == "F" or file.mode.startswith("I"):
        return True
    if file.format == "TIFF":
        signed = file.mode == "L" and _SIGNED in _tag(file, _SAMPLE_FORMAT)
        return signed or (file.mode != "1" and max(_tag(file, _BITS)) > 8)
    if file.format == "PPM":
        return _highest(file) > 255
    return file.format == "PNG" and ";16" in raw_mode(file)


def is_grey(file: ImageFile.ImageFile) -> bool:
    """Return whether a file of more than eight bits is stored as grey, also if Pillow has RGB."""
    return file.mode.startswith("I;16") or raw_mode(file).startswith("LA;16")


def decode(file: ImageFile.ImageFile, again: ImageFile.ImageFile) -> DeepImage:
    """Decode the values of a file for which `is_deep` is true.

    Args:
        file: open, its pixels not yet read.
        again: the same, opened once more, as Pillow reads 16 bits of colours only by halves.

    Raises:
        ValueError: Pillow cannot read its values.
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
    transparent = file.info.get("transparency") if file.format == "PNG" else None
    if transparent is not None and opacity is None:
        equal = values == np.asarray(transparent)
        opacity = np.where(equal.all(2) if equal.ndim == 3 else equal, 0, 255).astype(np.uint8)
    white_is_lowest = file.format == "TIFF" and _tag(file, _PHOTOMETRIC) == (0,)
    return DeepImage(values, opacity, white_is_lowest)


def _grey(file: ImageFile.ImageFile) -> npt.NDArray[Any]:
    highest = _highest(file) if file.format == "PPM" else 0  # asked before the pixels are read
    if file.tile[0].codec_name == "libtiff":
        # It returns this machine's byte order, which Pillow forgets if there are signs.
        name = raw_mode(file)
        _read_as(file, _NATIVE.get(name, name))
    values = np.asarray(file)
    if file.format == "TIFF":
        # Pillow has no mode for these, and returns their bits.
        if file.mode == "I" and _UNSIGNED in _tag(file, _SAMPLE_FORMAT, (_UNSIGNED,)):
            return values.view(np.uint32)
        if file.mode == "L":
            return values.view(np.int8)
    # Pillow has made 65535 of the highest value that a PPM file names.
    return np.rint(values * (highest / 65535)) if highest else values


def _colours(file: ImageFile.ImageFile, again: ImageFile.ImageFile) -> npt.NDArray[np.uint16]:
    """Return 16 bits of channels of which Pillow keeps eight: (height, width, 2 to 4 channels)."""
    name, _, order = raw_mode(file).partition(";16")
    if name == "LA":  # as wide as RGBA of 8 bits
        _read_as(file, "RGBA")
        halves = np.asarray(file).astype(np.uint16)
        return halves[..., ::2] * 256 + halves[..., 1::2]
    is_planar = file.format == "TIFF" and 2 in _tag(file, _PLANAR)
    if name not in _COLOURS or is_planar or order not in ("B", "L", "N"):
        kind = "channels one after the other" if is_planar else f"channels {name or file.mode}"
        raise ValueError(f"it has {kind} of more than 8 bits; save it as RGB or with 8 bits")
    # In the other byte order the lower half is where Pillow looks for the upper one.
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
    """Return the highest value that a PPM file names, 0 if it is a usual one."""
    arguments = file.tile[0].args
    return int(arguments[1]) if isinstance(arguments, tuple) and file.mode != "F" else 0


def raw_mode(file: ImageFile.ImageFile) -> str:
    """Return Pillow's name for the layout of the pixels in the file."""
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
