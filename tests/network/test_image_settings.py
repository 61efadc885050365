"""What weights want of their images completes a configuration where its keys are null."""

from __future__ import annotations

import pytest

from trainer.config.data_keys import DataConfig
from trainer.network.image_settings import fill_in, find_doubts
from trainer.network.pretrained import Preprocessing

MEAN, DEVIATION = (0.1, 0.2, 0.3), (0.4, 0.5, 0.6)
KNOWN = Preprocessing(MEAN, DEVIATION, (224, 200), 0.875, "bicubic")


def test_all_that_is_null_comes_from_the_weights() -> None:
    assert fill_in(DataConfig(name="folder", root="a"), KNOWN) == DataConfig(
        name="folder",
        root="a",
        image_size=[224, 200],
        channels=3,
        crop_share=0.875,
        interpolation="bicubic",
        scaling="pretrained",
        mean=list(MEAN),
        deviation=list(DEVIATION),
    )


def test_what_was_asked_for_stays() -> None:
    asked = DataConfig(
        name="table",
        root="a.csv",
        image_size=[64, 64],
        channels=1,
        crop_share=1.0,
        interpolation="nearest",
        scaling="per_channel",
    )
    assert fill_in(asked, KNOWN) == asked
    own = DataConfig(name="digits", scaling="pretrained", mean=[0.5], deviation=[0.5])
    assert fill_in(own, KNOWN) == own


def test_arrays_get_no_more_than_the_scaling() -> None:
    expected = DataConfig(
        name="digits", scaling="pretrained", mean=list(MEAN), deviation=list(DEVIATION)
    )
    assert fill_in(DataConfig(name="digits"), KNOWN) == expected


def test_nothing_is_known_without_weights() -> None:
    assert fill_in(DataConfig(name="digits"), Preprocessing()) == DataConfig(name="digits")
    usual = {"crop_share": 1.0, "interpolation": "bilinear"}
    found = fill_in(DataConfig(name="folder", root="a"), Preprocessing())
    assert found == DataConfig(name="folder", root="a", **usual)


@pytest.mark.parametrize("resize", ["pad", "stretch"])
def test_only_a_crop_has_a_share(resize: str) -> None:
    data = DataConfig(name="folder", root="a", resize=resize)  # type: ignore[arg-type]
    assert fill_in(data, KNOWN).crop_share == 1.0


def test_other_channels_are_scaled_by_themselves() -> None:
    found = fill_in(DataConfig(name="folder", root="a", channels=5), KNOWN)
    assert (found.scaling, found.mean, found.channels) == (None, None, 5)


@pytest.mark.parametrize(
    ("data", "advice"),
    [
        (DataConfig(name="folder", root="a"), "data.image_size: null takes that size"),
        (DataConfig(name="digits"), "save them as pictures"),
    ],
)
def test_much_smaller_images_are_doubted(data: DataConfig, advice: str) -> None:
    (found,) = find_doubts(data, (28, 28), KNOWN)
    assert "trained on images of 224 x 200 pixels, and these have 28 x 28" in found
    assert advice in found
    assert not find_doubts(data, (128, 128), KNOWN)
    assert not find_doubts(data, (8, 8), Preprocessing())
