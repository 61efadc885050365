"""A picture file is decoded, however it is stored, or refused by its name."""

from __future__ import annotations

import io
import struct
import sys
import threading
import warnings
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from trainer.base.errors import UserError
from trainer.data.pictures import decoding, formats
from trainer.data.pictures.decoding import ImageInfo, decode, read_info
from trainer.data.pictures.names import is_picture

ORIENTATION = 0x0112
WIDE = np.array([[10, 20, 30], [40, 50, 60]], dtype=np.uint8)
"""2 high and 3 wide"""


def save(path: Path, pixels: np.ndarray | Image.Image, **options: Any) -> Path:
    picture = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    picture.save(path, **options)
    return path


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif", ".gif"])
def test_pixels_come_back_as_stored(tmp_path: Path, suffix: str) -> None:
    path = save(tmp_path / f"grey{suffix}", WIDE)
    assert np.array_equal(decode(path, 1, (2, 3)), WIDE[None])
    assert np.array_equal(decode(path, 3, (2, 3)), np.stack([WIDE] * 3))


def test_colours_stay_in_their_order_and_grey_is_their_luma(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255]]], np.uint8))
    pixels = decode(path, 3, (1, 3))
    assert pixels.dtype == np.uint8
    assert pixels.flags.c_contiguous
    assert pixels[:, 0].tolist() == [[255, 0, 0], [0, 255, 0], [0, 0, 255]]
    assert decode(path, 1, (1, 3)).tolist() == [[[76, 150, 29]]]  # 299, 587 and 114 thousandths


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif"])
@pytest.mark.parametrize(
    ("orientation", "expected"),
    [
        (1, WIDE),
        (2, WIDE[:, ::-1]),
        (3, WIDE[::-1, ::-1]),
        (4, WIDE[::-1]),
        (5, WIDE.T),
        (6, np.rot90(WIDE, -1)),
        (7, WIDE[::-1, ::-1].T),
        (8, np.rot90(WIDE)),
    ],
)
def test_a_picture_is_turned_upright(
    tmp_path: Path, orientation: int, expected: np.ndarray, suffix: str
) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    pixels = WIDE.repeat(16, 0).repeat(16, 1)  # JPEG has blocks of 8 and 16 pixels
    path = save(tmp_path / f"a{suffix}", pixels, exif=exif)
    height, width = (16 * side for side in expected.shape)
    assert read_info(path) == ImageInfo(height, width, 1)
    found = decode(path, 1, (height, width))[0, 8::16, 8::16]
    assert np.abs(found.astype(int) - expected).max() <= 2


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparent_pixels_become_white(tmp_path: Path, mode: str) -> None:
    picture = Image.new("RGBA", (3, 1), (0, 0, 0, 0))
    picture.putpixel((1, 0), (0, 0, 0, 255))
    if mode == "RGBA":
        picture.putpixel((2, 0), (0, 0, 0, 128))
    path = save(tmp_path / "a.png", picture.convert(mode))
    assert decode(path, 1, (1, 3))[0, 0, :2].tolist() == [255, 0]
    assert decode(path, 3, (1, 3))[:, 0, 0].tolist() == [255, 255, 255]
    if mode == "RGBA":
        assert decode(path, 1, (1, 3))[0, 0, 2] == 127


def test_a_transparent_colour_without_alpha_becomes_white(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", np.array([[0, 100]], np.uint8), transparency=0)
    assert decode(path, 1, (1, 2)).tolist() == [[[255, 100]]]


def test_a_palette_is_looked_up(tmp_path: Path) -> None:
    colours = np.array([[[250, 10, 30], [20, 240, 50], [250, 10, 30]]], np.uint8)
    path = save(tmp_path / "a.png", Image.fromarray(colours).quantize(2))
    with Image.open(path) as file:
        assert file.mode == "P"
    assert np.array_equal(decode(path, 3, (1, 3)).transpose(1, 2, 0), colours)
    assert read_info(path).channels == 3


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_sixteen_bits_are_mapped_by_a_range(tmp_path: Path, suffix: str) -> None:
    path = save(tmp_path / f"a{suffix}", np.array([[0, 255, 257, 51 * 257, 65535]], np.uint16))
    whole = (0.0, 65535.0)
    assert decode(path, 1, (1, 5), whole).tolist() == [[[0, 1, 1, 51, 255]]]
    assert decode(path, 3, (1, 5), whole)[2].tolist() == [[0, 1, 1, 51, 255]]
    assert read_info(path) == ImageInfo(1, 5, 1, *whole)
    with pytest.raises(UserError, match="nothing says which are black and white"):
        decode(path, 1, (1, 5))


def test_one_bit_is_black_and_white(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", Image.fromarray(WIDE > 25))
    assert decode(path, 1, (2, 3)).tolist() == [[[0, 0, 255], [255, 255, 255]]]
    assert read_info(path).channels == 1


def test_colours_of_a_printer_become_red_green_and_blue(tmp_path: Path) -> None:
    path = save(tmp_path / "a.jpg", Image.new("CMYK", (8, 8), (0, 255, 255, 0)))
    red, green, blue = decode(path, 3, (8, 8))[:, 4, 4].tolist()
    assert red > 240
    assert max(green, blue) < 15


def test_the_first_of_several_images_counts(tmp_path: Path) -> None:
    black, white = (Image.new("L", (3, 2), value) for value in (0, 255))
    path = save(tmp_path / "a.gif", black, save_all=True, append_images=[white])
    assert decode(path, 1, (2, 3)).max() == 0


def test_another_size_is_stretched(tmp_path: Path) -> None:
    chess = (np.indices((100, 80)).sum(0) % 2 * 255).astype(np.uint8)
    path = save(tmp_path / "a.png", chess)
    pixels = decode(path, 1, (10, 20))
    assert pixels.shape == (1, 10, 20)
    # Without a filter some would be black and others white.
    assert np.abs(pixels.astype(int) - 127).max() < 40
    assert read_info(path) == ImageInfo(100, 80, 1)


def test_the_content_counts_and_not_the_name(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", WIDE, format="BMP")
    assert np.array_equal(decode(path, 1, (2, 3)), WIDE[None])


def png(width: int, height: int) -> bytes:
    """A PNG file whose head announces this size; its pixels are missing."""
    head = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    end = b"IEND"
    chunks = [struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c)) for c in
              (head, b"IDAT" + zlib.compress(b""), end)]  # fmt: skip
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


@pytest.mark.parametrize(("width", "height"), [(10_000, 10_000), (30_000, 30_000)])
def test_a_bomb_is_refused_before_it_is_unpacked(tmp_path: Path, width: int, height: int) -> None:
    path = tmp_path / "bomb.png"
    path.write_bytes(png(width, height))
    for call in (read_info, lambda path: decode(path, 1, (8, 8))):
        with pytest.raises(UserError, match=r"bomb\.png: has .* megapixels; .* data\.max_megapix"):
            call(path)
    assert read_info(path, max_megapixels=900) == ImageInfo(height, width, 1)


@pytest.mark.parametrize(
    ("name", "format_name"),
    [("a.jfif", "JPEG"), ("a.JPE", "JPEG"), ("a.avif", "AVIF"), ("a.heic", "HEIF")],
)
def test_what_phones_and_browsers_write_is_a_picture(
    tmp_path: Path, name: str, format_name: str
) -> None:
    assert is_picture(name)
    exif = Image.Exif()
    if format_name == "HEIF":  # which is turned by its own entries, and not by EXIF
        pytest.importorskip("pillow_heif")
        assert formats.register_heif()
    else:
        exif[ORIENTATION] = 6  # to be turned to the right
    left_is_red = np.zeros((40, 60, 3), np.uint8)
    left_is_red[:, :30, 0] = 255
    stored = np.rot90(left_is_red, -1) if format_name == "HEIF" else left_is_red
    path = save(tmp_path / name, np.ascontiguousarray(stored), format=format_name, exif=exif)
    assert read_info(path) == ImageInfo(60, 40, 3)
    pixels = decode(path, 3, (60, 40)).astype(int)
    assert pixels[0, :25].min() > 220
    assert pixels[0, 35:].max() < 35


def test_heic_without_its_package_names_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("pillow_heif")
    assert formats.register_heif()
    path = save(tmp_path / "a.jpg", np.zeros((20, 20), np.uint8), format="HEIF")
    formats.register_heif.cache_clear()
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(UserError, match=r"a\.jpg: is HEIC, .* 'lockstep-trainer\[heic\]'"):
        decode(path, 3, (8, 8))
    formats.register_heif.cache_clear()


def encoded(format_name: str) -> bytes:
    memory = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    Image.fromarray(noise).save(memory, format_name)
    return memory.getvalue()


@pytest.mark.filterwarnings("ignore::UserWarning")  # from Pillow, about what it skips
@pytest.mark.parametrize("format_name", ["PNG", "JPEG", "GIF", "TIFF", "BMP", "WEBP"])
def test_a_file_that_is_cut_off_is_named(tmp_path: Path, format_name: str) -> None:
    path = tmp_path / "cut.png"
    content = encoded(format_name)
    path.write_bytes(content)
    decode(path, 3, (8, 8))
    for length in (len(content) // 2, 20, 0):
        path.write_bytes(content[:length])
        with pytest.raises(UserError, match=r"cut\.png: is not a picture that can be read"):
            decode(path, 3, (8, 8))


@pytest.mark.filterwarnings("ignore::UserWarning")  # from Pillow, about what it skips
@pytest.mark.parametrize("format_name", ["PNG", "JPEG", "GIF", "TIFF", "BMP", "WEBP"])
def test_a_damaged_file_is_named_or_read(tmp_path: Path, format_name: str) -> None:
    random = np.random.default_rng(1)
    path = tmp_path / "broken.png"
    content = encoded(format_name)
    named = 0
    for _ in range(60):
        spoilt = bytearray(content)
        for place in random.integers(0, min(len(content), 300), 3):
            spoilt[place] = random.integers(0, 256)
        path.write_bytes(spoilt)
        try:
            assert decode(path, 3, (8, 8)).shape == (3, 8, 8)
        except UserError as error:
            assert str(error).startswith(f"{path}: ")  # noqa: PT017 - where it is read, no error
            named += 1
    assert named > 0


@pytest.mark.parametrize("content", [b"", b"no picture", b"%!PS-Adobe-3.0 EPSF-3.0\n"])
def test_a_file_that_is_not_a_picture_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "notes.jpg"
    path.write_bytes(content)
    for call in (read_info, lambda path: decode(path, 1, (8, 8))):
        with pytest.raises(UserError, match=r"notes\.jpg: is not a picture that can be read"):
            call(path)


def test_an_empty_file_with_an_odd_name_is_described_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "red\x1b[31m\nline.jpg"
    path.touch()
    with pytest.raises(UserError) as caught:
        read_info(path)
    reason = "is not a picture that can be read (it is empty, of 0 bytes)"
    assert str(caught.value) == rf"{tmp_path}/red\x1b[31m\nline.jpg: {reason}"


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none\.png: there is no such file"):
        decode(tmp_path / "none.png", 1, (8, 8))
    with pytest.raises(UserError, match="is not a picture that can be read"):
        decode(tmp_path, 1, (8, 8))


def test_threads_leave_the_filters_of_warnings_as_they_were(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", WIDE)
    before = list(warnings.filters)
    threads = [
        threading.Thread(target=lambda: [decoding.read_info(path) for _ in range(100)])
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert warnings.filters == before
