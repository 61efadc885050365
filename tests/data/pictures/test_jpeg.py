"""Usual JPEG files without Pillow: the same pixels, and whatever is unusual is left to Pillow."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from trainer.base.errors import UserError
from trainer.data.pictures import decoding, jpeg

pytest.importorskip("simplejpeg")


def photograph(height: int = 61, width: int = 83) -> Image.Image:
    y, x, channel = np.indices((height, width, 3))
    waves = 90 * np.sin(x / 5 + channel) + 70 * np.cos(y * x / 300) + 128
    noise = np.random.default_rng(height * width).normal(0, 15, waves.shape)
    return Image.fromarray((waves + noise).clip(0, 255).astype(np.uint8))


def encode(image: Image.Image, **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "JPEG", **options)
    return stream.getvalue()


def by_pillow(content: bytes, channels: int) -> np.ndarray:
    image = ImageOps.exif_transpose(Image.open(io.BytesIO(content)))
    pixels = np.array(image.convert("L" if channels == 1 else "RGB"))
    return pixels.reshape(*pixels.shape[:2], channels)


def by_us(tmp_path: Path, content: bytes, channels: int) -> np.ndarray:
    (tmp_path / "a.jpg").write_bytes(content)
    return decoding.read_upright(tmp_path / "a.jpg", channels)


def exif(orientation: int) -> Image.Exif:
    found = Image.Exif()
    found[0x0112] = orientation
    return found


USUAL: dict[str, dict[str, Any]] = {
    "no subsampling": {"subsampling": 0},
    "4:2:2": {"subsampling": 1},
    "4:2:0": {"subsampling": 2},
    "4:1:1": {"subsampling": "4:1:1"},
    "progressive": {"progressive": True},
    "optimized": {"optimize": True, "quality": 30},
    "best": {"quality": 100},
    "restarts": {"restart_marker_blocks": 3},
    "comment": {"comment": b"a comment"},
    "colour profile": {"icc_profile": b"x" * 70_000},
    **{f"orientation {number}": {"exif": exif(number)} for number in range(1, 9)},
}


@pytest.mark.parametrize("options", USUAL.values(), ids=USUAL)
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_usual_files_have_the_pixels_that_pillow_gives(
    tmp_path: Path, options: dict[str, Any], mode: str
) -> None:
    if mode == "L" and options.get("subsampling") == "4:1:1":
        options = {}
    content = encode(photograph().convert(mode), **options)
    head = jpeg.read_head(content)
    assert head is not None and head.channels == len(mode)
    expected = by_pillow(content, 3)
    assert np.array_equal(jpeg.decode(content, head, 3), expected)
    assert np.array_equal(by_us(tmp_path, content, 3), expected)
    info = decoding.read_info(tmp_path / "a.jpg")
    assert (info.height, info.width, info.channels) == (*expected.shape[:2], len(mode))
    assert np.array_equal(by_us(tmp_path, content, 1), by_pillow(content, 1))


@settings(max_examples=40, deadline=None)
@given(
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    quality=st.integers(1, 100),
    subsampling=st.sampled_from(["4:4:4", "4:2:2", "4:2:0", "4:1:1"]),
)
def test_pictures_of_any_size_have_the_pixels_that_pillow_gives(
    height: int, width: int, quality: int, subsampling: str
) -> None:
    content = encode(photograph(height, width), quality=quality, subsampling=subsampling)
    head = jpeg.read_head(content)
    assert head is not None
    assert np.array_equal(jpeg.decode(content, head, 3), by_pillow(content, 3))


XMP = b'http://ns.adobe.com/xap/1.0/\0<x tiff:Orientation="6"/>'

UNUSUAL = {
    "colours for printers": encode(photograph().convert("CMYK")),
    "turned by XMP": encode(photograph(), xmp=XMP),
    "broken metadata": encode(photograph(), exif=b"Exif\0\0II*\0"),
    "bytes before a marker": encode(photograph()).replace(b"\xff\xdb", b"\xff\xff\xdb", 1),
}


@pytest.mark.parametrize("content", UNUSUAL.values(), ids=UNUSUAL)
def test_unusual_files_are_left_to_pillow(tmp_path: Path, content: bytes) -> None:
    assert jpeg.read_head(content) is None
    assert np.array_equal(by_us(tmp_path, content, 3), by_pillow(content, 3))


def test_what_is_broken_is_named_or_read_as_pillow_does(tmp_path: Path) -> None:
    content = bytearray(encode(photograph()))
    with pytest.raises(UserError, match=r"a\.jpg: is not a picture that can be read"):
        by_us(tmp_path, bytes(content[: len(content) // 2]), 3)
    content[-400] ^= 0x55
    assert np.array_equal(by_us(tmp_path, bytes(content), 3), by_pillow(bytes(content), 3))


def test_a_bomb_is_refused_by_its_head(tmp_path: Path) -> None:
    content = encode(photograph()).replace(b"\x08\x00\x3d\x00\x53", b"\x08\xff\xff\xff\xff", 1)
    (tmp_path / "a.jpg").write_bytes(content)
    for read in (decoding.read_info, lambda path: decoding.read_upright(path, 3)):
        with pytest.raises(UserError, match="megapixels"):
            read(tmp_path / "a.jpg")


@pytest.fixture
def other_decoder() -> Iterator[None]:
    jpeg.has_equal_bits.cache_clear()
    yield
    jpeg.has_equal_bits.cache_clear()


@pytest.mark.usefixtures("other_decoder")
def test_a_decoder_that_gives_other_pixels_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Careless:
        @staticmethod
        def decode_jpeg(content: bytes, colorspace: str) -> np.ndarray:
            return np.array(Image.open(io.BytesIO(content)).convert(colorspace[:3])) // 2

    content, modules = encode(photograph()), [Careless, None]
    for module in modules:
        jpeg.has_equal_bits.cache_clear()
        monkeypatch.setitem(sys.modules, "simplejpeg", module)  # None: it is not installed
        assert np.array_equal(by_us(tmp_path, content, 3), by_pillow(content, 3))
