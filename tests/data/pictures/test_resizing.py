"""Pictures of any shape become images of one size: cropped, padded or stretched."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from trainer.config.schema import Interpolation, ResizeRule
from trainer.data.pictures import decoding
from trainer.data.pictures.resizing import (
    Fit,
    crop_image,
    fitted_size,
    middle_box,
    resize,
    resize_into,
)

RULES: tuple[ResizeRule, ...] = ("crop", "pad", "stretch")


def striped(height: int, width: int) -> np.ndarray:
    """Columns of 10, 20, 30 and so on: a crop shows which of them are left."""
    return np.broadcast_to(
        (np.arange(width) * 10).astype(np.uint8)[None, :, None], (height, width, 1)
    )


def pattern(height: int, width: int) -> np.ndarray:
    """Build a colourful image by whole numbers only."""
    y, x, channel = np.indices((height, width, 3))
    return (
        (y * y * 3 + x * x * 5 + x * y * (channel + 1) * 7) // (64 + 32 * channel) % 256
    ).astype(np.uint8)


def digest(pixels: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(pixels)).hexdigest()[:16]


def test_a_crop_takes_the_middle() -> None:
    assert resize(striped(4, 8), (4, 4), Fit("crop"))[0, :, 0].tolist() == [20, 30, 40, 50]
    upright = striped(4, 8).transpose(1, 0, 2)
    assert resize(upright, (4, 4), Fit("crop"))[:, 0, 0].tolist() == [20, 30, 40, 50]


def test_a_crop_has_the_aspect_of_the_size() -> None:
    assert middle_box(100, 300, (50, 100)) == (50, 0, 250, 100)
    assert middle_box(300, 100, (100, 100)) == (0, 100, 100, 200)
    assert resize(striped(4, 12), (2, 4), Fit("crop")).shape == (2, 4, 1)


def test_a_share_of_the_shorter_side_is_what_cutting_after_resizing_gives() -> None:
    """timm and torchvision resize the shorter side to 8 / 0.5, and cut 8 x 8 out of the middle."""
    assert middle_box(100, 300, (50, 100), 0.5) == (100, 25, 200, 75)
    image = Image.fromarray(pattern(40, 64))
    larger = image.resize((26, 16), Image.Resampling.BICUBIC)
    expected = np.array(larger.crop((9, 4, 17, 12))).astype(int)
    found = resize(pattern(40, 64), (8, 8), Fit("crop", 0.5, "bicubic")).astype(int)
    assert np.abs(found - expected).mean() < 3
    # The number of pixels is right, and so nothing is resized: only the middle is cut out.
    assert np.array_equal(
        resize(pattern(16, 16), (8, 8), Fit("crop", 0.5)), pattern(16, 16)[4:12, 4:12]
    )


@pytest.mark.parametrize("name", ["nearest", "box", "bilinear", "hamming", "bicubic", "lanczos"])
def test_filters_are_pillows_also_for_the_boxes_of_a_training(name: Interpolation) -> None:
    pixels, resampling = pattern(41, 53), Image.Resampling[name.upper()]
    expected = np.array(Image.fromarray(pixels).resize((17, 13), resampling))
    assert np.array_equal(resize(pixels, (13, 17), Fit("stretch", interpolation=name)), expected)
    box = torch.empty(3, 13, 17, dtype=torch.uint8)
    resize_into(box, pixels[:, :], name)
    difference = np.abs(box.permute(1, 2, 0).numpy().astype(int) - expected.astype(int))
    assert difference.max() <= (1 if name in ("bilinear", "bicubic") else 0)


def test_caches_and_fingerprints_name_the_usual_way_as_they_always_did() -> None:
    assert (repr(Fit("pad")), str(Fit("pad"))) == ("'pad'", "pad")
    assert str(Fit("crop", 0.875, "bicubic")) == "crop of 0.875, bicubic"


def test_padding_is_black_on_both_sides() -> None:
    pixels = resize(np.full((4, 8, 3), 200, np.uint8), (8, 8), Fit("pad"))
    assert (pixels[:2] == 0).all()
    assert (pixels[2:6] == 200).all()
    assert (pixels[6:] == 0).all()
    pixels = resize(np.full((8, 4, 1), 200, np.uint8), (4, 6), Fit("pad"))
    assert pixels[0, :, 0].tolist() == [0, 0, 200, 200, 0, 0]


def test_a_strip_keeps_at_least_one_pixel() -> None:
    assert fitted_size(1, 1000, (32, 32)) == (1, 32)
    assert resize(np.full((1, 1000, 1), 9, np.uint8), (32, 32), Fit("pad")).max() == 9


def test_stretching_keeps_the_ends() -> None:
    pixels = resize(striped(4, 8), (4, 4), Fit("stretch"))
    assert pixels[0, 0, 0] < 20
    assert pixels[0, -1, 0] > 50


@pytest.mark.parametrize("rule", RULES)
def test_an_image_of_the_right_size_stays_as_it_is(rule: ResizeRule) -> None:
    assert np.array_equal(resize(pattern(20, 30), (20, 30), Fit(rule)), pattern(20, 30))


@pytest.mark.parametrize("rule", RULES)
def test_each_channel_is_resized_by_itself(rule: ResizeRule) -> None:
    colours = pattern(37, 53)
    five = np.concatenate([colours, colours[:, :, :2]], 2)
    expected = resize(colours, (16, 24), Fit(rule))
    assert np.array_equal(resize(five, (16, 24), Fit(rule))[:, :, :3], expected)
    assert np.array_equal(resize(five, (16, 24), Fit(rule))[:, :, 3:], expected[:, :, :2])


def test_a_picture_is_cropped_where_nothing_else_is_said(tmp_path: Path) -> None:
    Image.fromarray(striped(4, 8)[:, :, 0]).save(tmp_path / "a.png")
    assert decoding.decode(tmp_path / "a.png", 1, (4, 4))[0, 0].tolist() == [20, 30, 40, 50]


def test_the_pixels_are_the_same_on_every_machine() -> None:
    """What libjpeg-turbo and Pillow compute here is whole numbers: their sums are constants."""
    image = Image.fromarray(pattern(301, 217))
    found = {rule: digest(resize(pattern(301, 217), (96, 128), Fit(rule))) for rule in RULES}
    assert found == {
        "crop": "251ac4c9f335910f",
        "pad": "c64046d3539c767e",
        "stretch": "3ff64abf14038a79",
    }
    box = (10.25, 20.5, 200.125, 290.75)
    assert digest(np.array(crop_image(image, box, (64, 64)))) == "341e0deb6fd2fc8c"
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=85)
    assert hashlib.sha256(stream.getvalue()).hexdigest()[:16] == "6cc53db8af75e7b0"
    with Image.open(stream) as file:
        assert digest(np.array(file)) == "99c319c74f3c8862"
