"""The list form: what its transforms depend on, alone and together."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer.config.augmentations import TRANSFORMS_OF_LISTS, canonical
from trainer.data.augment.list_transforms import TABLE
from trainer.data.augment.policy import Augmentation

EVERYTHING = [
    "random_resized_crop",
    *(name for name in TRANSFORMS_OF_LISTS if name != "random_resized_crop"),
    {"erase": {"noise": "pixel"}},
]
SHAPES = [(3, 16, 24), (1, 9, 9), (4, 7, 5), (3, 1, 1)]
"""channels, height and width"""


def augmentation(*entries: Any, seed: int = 5) -> Augmentation:
    return Augmentation(canonical(list(entries)), seed)


def random_images(count: int, channels: int, height: int, width: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    shape = (count, channels, height, width)
    return torch.randint(256, shape, dtype=torch.uint8, generator=generator)


def test_every_name_that_may_be_written_is_a_transform() -> None:
    assert TABLE.keys() == TRANSFORMS_OF_LISTS.keys()


@pytest.mark.parametrize("name", [*TRANSFORMS_OF_LISTS, "everything"])
def test_a_list_depends_only_on_seed_epoch_and_sample(name: str) -> None:
    entries = EVERYTHING if name == "everything" else [name]
    images, samples = random_images(48, 3, 64, 96), torch.arange(48)
    before = images.clone()
    whole = augmentation(*entries)(images, samples, 1)
    assert torch.equal(images, before)
    assert whole.shape == images.shape
    assert whole.dtype == torch.uint8
    order = torch.randperm(48)
    assert torch.equal(augmentation(*entries)(images[order], samples[order], 1), whole[order])
    assert not torch.equal(augmentation(*entries)(images, samples, 2), whole)
    assert not torch.equal(augmentation(*entries, seed=6)(images, samples, 1), whole)


@settings(max_examples=12, deadline=None)
@given(
    shape=st.sampled_from(SHAPES),
    cuts=st.lists(st.integers(0, 41), max_size=4).map(sorted),
    epoch=st.integers(1, 3),
)
def test_the_bits_do_not_depend_on_the_batch(
    shape: tuple[int, int, int], cuts: list[int], epoch: int
) -> None:
    images, samples = random_images(41, *shape), torch.arange(100, 141)
    augment = augmentation(*EVERYTHING)
    whole = augment(images, samples, epoch)
    parts = zip(images.tensor_split(cuts), samples.tensor_split(cuts), strict=True)
    assert torch.equal(torch.cat([augment(*part, epoch) for part in parts]), whole)


def test_each_place_in_a_list_draws_by_itself() -> None:
    images, samples = random_images(200, 1, 1, 2), torch.arange(200)
    first, second = (
        (augmentation(*entries)(images, samples, 1) != images).flatten(1).any(1)
        for entries in (["flip"], [{"flip": {"probability": 0}}, "flip"])
    )
    assert 20 < (first != second).sum() < 180


def test_half_of_the_images_flip_in_each_epoch_and_the_others_in_the_next() -> None:
    images, samples = random_images(400, 1, 2, 2), torch.arange(400)
    flipped = [
        (augmentation("alternating_flip")(images, samples, epoch) != images).flatten(1).any(1)
        for epoch in (1, 2, 3)
    ]
    both = (images.flip(3) != images).flatten(1).any(1)
    assert torch.equal(flipped[0], flipped[2])
    assert torch.equal(flipped[0] ^ flipped[1], both)
    assert 150 < flipped[0].sum() < 250


def test_boxes_are_within_their_bounds_and_scale_with_the_picture() -> None:
    entry = {"random_resized_crop": {"area": [0.35, 0.8], "aspect": 1.5}}
    augment, samples = augmentation(entry, "flip"), torch.arange(4000)
    sizes = torch.tensor([[300, 400]]).expand(4000, 2)
    boxes = augment.draw_boxes(samples, 1, sizes)
    assert boxes is not None
    left, top, right, bottom = boxes.unbind(1)
    assert left.min() >= 0
    assert top.min() >= 0
    assert right.max() <= 400
    assert bottom.max() <= 300
    areas, aspects = (right - left) * (bottom - top) / 120_000, (right - left) / (bottom - top)
    assert 0.3 < areas.min() < 0.36
    assert 0.78 < areas.max() <= 0.8 + 1e-9
    assert 1 / 1.5 - 1e-6 <= aspects.min() < 0.69
    assert 1.45 < aspects.max() <= 1.5 + 1e-6
    assert (aspects > 1).double().mean() == pytest.approx(0.5, abs=0.03)
    larger = augment.draw_boxes(samples, 1, 2 * sizes)
    assert larger is not None
    torch.testing.assert_close(larger, 2 * boxes)
    order = torch.randperm(4000)
    again = augment.draw_boxes(samples[order], 1, sizes)
    assert again is not None
    assert torch.equal(again, boxes[order])


def test_a_box_has_the_shape_of_the_images_that_it_becomes() -> None:
    entry = {"random_resized_crop": {"area": [0.2, 0.2], "aspect": 1}}
    boxes = augmentation(entry).draw_boxes(torch.arange(9), 1, torch.tensor([[90, 80]] * 9), 2.0)
    assert boxes is not None
    width, height = (boxes[:, 2:] - boxes[:, :2]).unbind(1)
    torch.testing.assert_close(width, 2 * height)


def test_images_that_are_boxes_already_are_not_cut_again() -> None:
    images, samples = random_images(8, 3, 9, 9), torch.arange(8)
    augment = augmentation("random_resized_crop")
    assert torch.equal(augment(images, samples, 1, are_boxes=True), images)
    assert not torch.equal(augment(images, samples, 1), images)


@pytest.mark.parametrize("policy", ["none", "flip_crop", ["flip"]])
def test_without_a_random_resized_crop_there_are_no_boxes(policy: str | list[str]) -> None:
    sizes = torch.tensor([[9, 9]])
    assert Augmentation(policy, 0).draw_boxes(torch.tensor([0]), 1, sizes) is None


def test_large_images_are_mirrored_as_small_ones_are() -> None:
    images, samples = random_images(12, 3, 200, 240), torch.arange(12)
    before = images.clone()
    flipped = augmentation({"flip": {"probability": 1}})(images, samples, 1)
    assert torch.equal(flipped, images.flip(3))
    both = augmentation({"vertical_flip": {"probability": 1}})(flipped, samples, 1)
    assert torch.equal(both, images.flip(2, 3))
    assert torch.equal(images, before)
