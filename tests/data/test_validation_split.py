"""The validation images are taken out of the training images."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer.base.errors import UserError
from trainer.config.schema import DataConfig
from trainer.data.loading import build_dataset
from trainer.data.sources.source_data import LabelledImages, SourceData
from trainer.data.split import split, take


@settings(max_examples=60, deadline=None)
@given(
    classes=st.integers(2, 6),
    each=st.integers(2, 20),
    held_out_share=st.floats(0, 1),
    how=st.sampled_from(["stratified", "first"]),
    seed=st.integers(0, 2**62),
)
def test_every_image_is_in_one_part_and_in_file_order(
    classes: int,
    each: int,
    held_out_share: float,
    how: Literal["stratified", "first"],
    seed: int,
) -> None:
    labels = np.random.default_rng(0).permutation(np.arange(classes * each) % classes)
    size = round(classes + held_out_share * (len(labels) - 2 * classes))
    config = DataConfig(validation_size=size, validation=how)
    train, validation = split(config, labels, seed)
    assert len(validation) == size
    assert sorted([*train.tolist(), *validation.tolist()]) == list(range(len(labels)))
    assert np.all(np.diff(train) > 0)
    assert np.all(np.diff(validation) > 0)
    if how == "first":
        assert validation.tolist() == list(range(size))
    else:
        counts = np.bincount(labels[validation], minlength=classes)
        assert counts.max() - counts.min() <= 1


def test_the_stratified_draw_depends_on_the_seed_only() -> None:
    labels = np.arange(200) % 4
    config = DataConfig()
    first, again, other = (split(config, labels, seed)[1].tolist() for seed in (1, 1, 2**62))
    assert first == again
    assert first != other


@pytest.mark.parametrize(("count", "held_out"), [(60, 6), (65, 7), (64, 6), (4, 0)])
def test_null_is_a_tenth_rounded(count: int, held_out: int) -> None:
    labels = np.arange(count) % 2
    assert len(split(DataConfig(), labels, 0)[1]) == held_out


@pytest.mark.parametrize(("classes", "each"), [(2, 4), (2, 5), (20, 6), (20, 5), (50, 2)])
def test_a_tenth_is_raised_to_one_of_each_class(classes: int, each: int) -> None:
    labels = np.arange(classes * each) % classes
    train, validation = split(DataConfig(), labels, 0)
    assert np.bincount(labels[validation]).tolist() == [1] * classes
    assert sorted([*train.tolist(), *validation.tolist()]) == list(range(len(labels)))
    assert len(split(DataConfig(validation_size=classes), labels, 0)[1]) == classes


def test_a_class_with_one_image_keeps_it() -> None:
    labels = np.array([0] * 70 + [1] * 7 + [2])
    _, validation = split(DataConfig(), labels, 0)
    assert np.bincount(labels[validation], minlength=3).tolist() == [7, 1, 0]
    with pytest.raises(UserError, match=r"data\.validation: .* found 1 of class 0"):
        split(DataConfig(), np.arange(5), 0)


def test_a_tenth_that_has_room_for_every_class_is_drawn_as_before() -> None:
    labels = np.array([0] * 100 + [1, 2, 3] * 2)
    drawn = split(DataConfig(), labels, 3)[1]
    assert drawn.tolist() == split(DataConfig(validation_size=11), labels, 3)[1].tolist()


def test_a_size_of_zero_holds_nothing_out() -> None:
    train, validation = split(DataConfig(validation_size=0), np.array([0, 0, 1]), 0)
    assert train.tolist() == [0, 1, 2]
    assert validation.tolist() == []


@pytest.mark.parametrize("how", ["stratified", "first"])
def test_something_must_be_left_to_train_on(how: Literal["stratified", "first"]) -> None:
    config = DataConfig(validation_size=40, validation=how)
    with pytest.raises(UserError, match=r"data\.validation_size: 40 of 40 .* 0 to 39 can be"):
        split(config, np.arange(40) % 4, 0)


def test_a_class_with_one_image_cannot_be_divided() -> None:
    with pytest.raises(UserError, match=r"data\.validation: .* found 1 of class 2"):
        split(DataConfig(validation_size=5), np.array([0, 1] * 10 + [2]), 0)


@pytest.mark.parametrize("division", [{"validation_size": 5}, {"folds": 4, "fold": 1}])
def test_a_class_too_small_to_be_divided_is_called_by_its_name(division: dict[str, int]) -> None:
    labels, images = np.array([0, 1] * 10 + [2]), np.zeros((21, 1, 2, 2), np.uint8)
    part = LabelledImages(images, labels, "images", "labels")
    source = SourceData(part, part, ("cat", "dog", "owl"), "here")
    with pytest.raises(UserError, match="found 1 of class owl"):
        build_dataset(DataConfig(**division), 0, source)  # type: ignore[arg-type]


@pytest.mark.parametrize("size", [3, 37])
def test_a_stratified_draw_needs_every_class_on_both_sides(size: int) -> None:
    with pytest.raises(UserError, match=r"data\.validation_size: .* hold out 0 or 4 to 36, or"):
        split(DataConfig(validation_size=size), np.arange(40) % 4, 0)


def test_take_returns_how_many_images_to_use() -> None:
    assert take("data.train_size", None, 12) == 12
    assert take("data.train_size", 5, 12) == 5
    with pytest.raises(UserError, match=r"data\.test_size: 13 images .* 1 to 12"):
        take("data.test_size", 13, 12)
