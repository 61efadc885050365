"""How weights want their images, as other programs and runs say it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from trainer.base.errors import UserError
from trainer.network.preprocessing import of_run, of_timm, of_transformers

IMAGENET = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}


def test_those_of_timm() -> None:
    settings = {
        "mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225), "crop_pct": 0.875,
        "input_size": (3, 192, 224), "interpolation": "bicubic", "url": "anything",
    }  # fmt: skip
    found = of_timm(settings, "timm")
    assert found.mean == (0.485, 0.456, 0.406)
    assert found.deviation == (0.229, 0.224, 0.225)
    assert found.image_size == (192, 224)
    assert (found.crop_share, found.interpolation) == (0.875, "bicubic")


@pytest.mark.parametrize(
    ("settings", "image_size", "crop_share"),
    [
        ({"size": 224}, (224, 224), 1.0),
        ({"size": {"height": 192, "width": 224}}, (192, 224), 1.0),
        ({"size": {"shortest_edge": 224}, "crop_pct": 0.875}, (224, 224), 0.875),
        ({"size": {"shortest_edge": 384}, "crop_pct": 0.875}, (384, 384), 1.0),
        (
            {"size": {"shortest_edge": 256}, "crop_size": {"height": 224, "width": 224}}
            | {"do_center_crop": True},
            (224, 224),
            0.875,
        ),
    ],
)
def test_sizes_of_transformers(
    settings: dict[str, Any], image_size: tuple[int, int], crop_share: float
) -> None:
    found = of_transformers({**IMAGENET, "resample": 2, **settings}, "file")
    assert (found.image_size, found.crop_share) == (image_size, crop_share)
    assert found.interpolation == "bilinear"
    assert found.mean == pytest.approx((0.485, 0.456, 0.406))


def test_pixels_from_minus_one_to_one_are_meant_where_an_offset_is() -> None:
    """x / 127.5 - 1, and then a mean of 0 and a deviation of 1."""
    settings = {
        "image_mean": [0.0] * 3, "image_std": [1.0] * 3,
        "rescale_factor": 1 / 127.5, "rescale_offset": True,
    }  # fmt: skip
    found = of_transformers(settings, "file")
    assert found.mean == pytest.approx((0.5,) * 3)
    assert found.deviation == pytest.approx((0.5,) * 3)


def test_those_of_a_run_are_in_units_of_one() -> None:
    metadata = {"mean": [[[51.0]]], "deviation": [[[102.0]]], "in_channels": 3}
    found = of_run({**metadata, "image_size": [8, 9]}, Path("model.safetensors"))
    assert found.mean == pytest.approx((0.2,) * 3)
    assert found.deviation == pytest.approx((0.4,) * 3)
    assert found.image_size == (8, 9)


@pytest.mark.parametrize(
    ("settings", "part"),
    [
        ({"mean": ["x"]}, "mean: must be"),
        ({"mean": [0.5], "std": [0.0]}, "its mean and deviation"),
        ({"mean": [0.5], "std": [float("nan")]}, "its mean and deviation"),
        ({"mean": [0.5]}, "its mean and deviation"),
        ({"input_size": [3, 10**9, 1]}, "its input size"),
        ({"crop_pct": 1.5}, "its crop share"),
    ],
)
def test_what_cannot_be_right_is_refused(settings: dict[str, Any], part: str) -> None:
    with pytest.raises(UserError, match=part):
        of_timm(settings, "config.json")


def test_a_size_of_nothing_is_refused() -> None:
    settings = {"size": 0, "crop_size": 224, "do_center_crop": True}
    with pytest.raises(UserError, match="file: size: must be at least 1 pixel, found 0"):
        of_transformers(settings, "file")
