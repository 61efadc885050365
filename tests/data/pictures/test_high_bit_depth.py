"""Pictures of more than eight bits a channel keep order and contrast, or are refused."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.data.picture_bytes import png, png16, tiff
from tests.data.picture_folders import prepared, write_pictures
from trainer.base.errors import UserError
from trainer.data.pictures.decoding import decode, read_info

pytestmark = pytest.mark.usefixtures("caches")

TWELVE_BITS = np.array([[0, 1000, 2000, 4095]])
SEEN = [0, 62, 125, 255]
"""what they become by the range of their values"""


def decode_by_own_range(path: Path, content: bytes, channels: int = 1) -> list[Any]:
    """Decode a picture by the range of its values."""
    path.write_bytes(content)
    found = read_info(path)
    assert found.lowest is not None
    assert found.highest is not None
    size = (found.height, found.width)
    pixels = decode(path, channels, size, (found.lowest, found.highest))
    return (pixels[:, 0] if channels == 3 else pixels[0, 0]).tolist()


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(
    "values",
    [
        TWELVE_BITS.astype("u2"),
        (TWELVE_BITS - 1024).astype("i2"),
        (TWELVE_BITS * 500_000 - 10**9).astype("i4"),
        (TWELVE_BITS / 4095).astype("f4"),
        (TWELVE_BITS // 20 - 100).astype("i1"),
    ],
    ids=["12 bits", "CT", "32 bits", "0 to 1", "8 bits with signs"],
)
def test_every_type_of_number_keeps_its_contrast(
    tmp_path: Path, values: np.ndarray, order: str, compressed: bool
) -> None:
    content = tiff(values, order=order, compressed=compressed)
    assert decode_by_own_range(tmp_path / "a.tif", content) == SEEN
    assert read_info(tmp_path / "a.tif").channels == 1


def test_thirty_two_bits_without_signs(tmp_path: Path) -> None:
    assert decode_by_own_range(tmp_path / "a.tif", tiff((TWELVE_BITS * 10**6).astype("u4"))) == SEEN


@pytest.mark.parametrize("kind", ["u2", "f4"])
def test_white_is_zero_is_turned_over(tmp_path: Path, kind: str) -> None:
    content = tiff(TWELVE_BITS.astype(kind), white_is_zero=True)
    assert decode_by_own_range(tmp_path / "a.tif", content) == [255 - value for value in SEEN]


@pytest.mark.parametrize(
    "content",
    [
        b"P5 4 1 4095\n" + TWELVE_BITS.astype(">u2").tobytes(),
        b"P5 4 1 65535\n" + TWELVE_BITS.astype(">u2").tobytes(),
        b"P2 4 1 4095\n0 1000 2000 4095\n",
        b"Pf 4 1 -1.0\n" + TWELVE_BITS.astype("<f4").tobytes(),
    ],
)
def test_portable_greymaps(tmp_path: Path, content: bytes) -> None:
    assert decode_by_own_range(tmp_path / "a.pgm", content) == SEEN


def test_transparent_pixels_become_white_and_do_not_count(tmp_path: Path) -> None:
    grey = TWELVE_BITS[..., None]
    path = tmp_path / "a.png"
    assert decode_by_own_range(path, png16(grey, transparent=(4095,))) == [0, 128, 255, 255]
    assert decode_by_own_range(path, png16(grey, transparent=(1000,))) == [0, 255, 125, 255]
    opacity = np.array([[65535, 65535, 32768, 0]])[..., None]
    assert decode_by_own_range(path, png16(np.dstack([grey, opacity]))) == [0, 128, 255, 255]
    assert read_info(path).channels == 1
    path.write_bytes(png16(np.dstack([grey, np.zeros_like(grey)])))
    assert read_info(path).lowest is None
    assert decode(path, 1, (1, 4)).tolist() == [[[255] * 4]]
    colours = np.dstack([grey, grey // 2, grey // 4])
    rows = decode_by_own_range(path, png16(colours, transparent=(1000, 500, 250)), 3)
    assert [row[1] for row in rows] == [255, 255, 255]
    assert [row[3] for row in rows] == [255, 127, 64]


def test_colours_keep_the_lower_half_of_their_bits(tmp_path: Path) -> None:
    grey = TWELVE_BITS[..., None]
    colours = np.dstack([grey, grey // 2, grey // 4])
    expected = [SEEN, [0, 31, 62, 127], [0, 16, 31, 64]]
    contents = [
        png16(colours),
        png16(np.dstack([colours, np.full_like(grey, 65535)])),
        b"P6 4 1 65535\n" + colours.astype(">u2").tobytes(),
        *(tiff(colours.astype("u2"), order=order, compressed=compressed)
          for order in "<>" for compressed in (False, True)),
    ]  # fmt: skip
    for content in contents:
        assert decode_by_own_range(tmp_path / "a.png", content, 3) == expected


@pytest.mark.parametrize(("bits", "row", "step"), [(2, b"\x18", 85), (4, b"\x01\x20", 17)])
def test_the_transparent_one_of_few_greys_is_found(
    tmp_path: Path, bits: int, row: bytes, step: int
) -> None:
    path = tmp_path / "a.png"  # of the greys 0, 1 and 2
    path.write_bytes(png(struct.pack(">IIBBBBB", 3, 1, bits, 0, 0, 0, 0), [row], (1,)))
    assert decode(path, 1, (1, 3)).tolist() == [[[0, 255, 2 * step]]]


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_nan_and_infinity_are_refused(tmp_path: Path, wrong: float) -> None:
    path = tmp_path / "a.tif"
    path.write_bytes(tiff(np.array([[0, 1, wrong]], "f4")))
    for call in (read_info, lambda path: decode(path, 1, (1, 3), (0, 1))):
        with pytest.raises(UserError, match=r"a\.tif: .* NaN or infinite"):
            call(path)


def test_a_range_that_leaves_one_value_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    path.write_bytes(tiff(TWELVE_BITS.astype("u2")))
    with pytest.raises(UserError, match=r"a\.tif: .*from 0 to 4095 would all become one, as 5000"):
        decode(path, 1, (1, 4), (5000, 6000))
    assert decode(path, 1, (1, 4), (1000, 2000)).tolist() == [[[0, 0, 255, 255]]]


def test_another_unit_is_refused_and_a_window_is_not(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    path.write_bytes(tiff((np.arange(4096) * 16).astype("u2")[None]))
    with pytest.raises(UserError, match=r"a\.tif: .* 94% would become one, as 0 is black and 4095"):
        decode(path, 1, (1, 4096), (0, 4095))
    # A window into a CT, with much air of little noise, or with a padding of one value.
    noise = np.random.default_rng(0).integers(-1030, -970, 4096)
    for outside in (noise, np.full(4096, -2000)):
        share = 0.85 if outside is noise else 0.95
        values = np.where(np.arange(4096) < share * 4096, outside, np.arange(4096) % 300)
        path.write_bytes(tiff(values.astype("i2")[None]))
        assert decode(path, 1, (1, 4096), (-160, 240)).max() == 255


def deepen(root: Path, change: Any, *parts: str) -> None:
    """Replace the pictures by ones of more bits and the same content."""
    for part in parts:
        for path in sorted((root / part).rglob("*.png")):
            pixels = np.asarray(Image.open(path)).astype(np.float64)
            path.unlink()
            path.with_suffix(".tif").write_bytes(tiff(change(pixels)))


@pytest.mark.parametrize(
    "change",
    [
        lambda pixels: (pixels * 16).astype("u2"),
        lambda pixels: (pixels * 4 - 512).astype("i2"),
        lambda pixels: (pixels / 255).astype("f4"),
        lambda pixels: (pixels * 10**6).astype("i4"),
    ],
)
def test_the_training_pictures_give_the_range(tmp_path: Path, change: Any) -> None:
    plain = prepared(write_pictures(tmp_path / "plain"))
    assert plain.grey_range is None
    lowest, highest = (change(np.array(float(end))) for end in (0, 255))
    root = write_pictures(tmp_path / "own")
    deepen(root, change, "train", "test")
    data = prepared(root)
    assert data.grey_range == (lowest, highest)
    assert f"more than 8 bits {lowest:g} is black and {highest:g} white" in data.source
    assert np.array_equal(data.train.images.numpy(), plain.train.images.numpy())
    assert np.array_equal(data.test.images.numpy(), plain.test.images.numpy())


def test_a_chosen_range_is_decoded_by_itself(tmp_path: Path) -> None:
    root = write_pictures(tmp_path / "own")
    deepen(root, lambda pixels: (pixels * 16).astype("u2"), "train", "test")
    wide, narrow = (prepared(root, grey_range=[0, high]) for high in (65535, 4080))
    assert wide.train.images.max() == 16
    assert narrow.train.images.max() == 255
    assert prepared(root, grey_range=[0, 65535]).fingerprint == wide.fingerprint


def test_eight_bits_stay_as_they_are_among_deeper_pictures(tmp_path: Path) -> None:
    plain = prepared(write_pictures(tmp_path / "plain"), validation_size=0)
    root = write_pictures(tmp_path / "own")
    deepen(root, lambda pixels: (pixels * 16).astype("u2"), "train/cat", "test/cat")
    mixed = prepared(root, validation_size=0)
    assert np.array_equal(mixed.train.images.numpy(), plain.train.images.numpy())


def test_a_picture_that_takes_the_contrast_of_others_is_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = write_pictures(tmp_path / "own")
    deepen(root, lambda pixels: (pixels * 16).astype("u2"), "train", "test")
    prepared(root)
    assert "greys" not in caplog.text
    whole = np.linspace(0, 65535, 120).reshape(12, 10).astype("u2")
    (root / "train" / "cat" / "whole.tif").write_bytes(tiff(whole))
    prepared(root)
    assert "40 of 41 pictures of more than 8 bits keep fewer than 16 greys" in caplog.text
    assert "as 0 is black and 65535 white" in caplog.text


def test_deep_pictures_without_a_range_are_named_or_left_out(tmp_path: Path) -> None:
    root = write_pictures(tmp_path / "own")
    deepen(root, lambda pixels: (pixels * 16).astype("u2"), "test/cat")
    with pytest.raises(UserError, match=r"10 of 40 pictures .*\n.*cat/000\.tif: .* train on has"):
        prepared(root)
    (root / "test" / "cat" / "whole.png").write_bytes(
        (root / "test" / "dog" / "000.png").read_bytes()
    )
    data = prepared(root, on_bad="skip")
    assert data.test.targets.bincount().tolist() == [1, 10]
