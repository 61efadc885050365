"""The transforms, by what they do to pixels."""

from __future__ import annotations

import pytest
import torch

from trainer.augment import POLICIES, Augmentation, cutout, flip, shift

IMAGE = torch.arange(1, 17, dtype=torch.uint8).view(1, 1, 4, 4)


def test_flip_mirrors_the_chosen_alone() -> None:
    pair = torch.cat([IMAGE, IMAGE])
    flipped = flip(pair, torch.tensor([True, False]))
    assert flipped[0, 0, 0].tolist() == [4, 3, 2, 1]
    assert torch.equal(flipped[1], IMAGE[0])


def test_shift_moves_whole_pixels_and_brings_in_black() -> None:
    down_and_left = shift(IMAGE, torch.tensor([1]), torch.tensor([-2]))
    assert down_and_left[0, 0].tolist() == [
        [0, 0, 0, 0],
        [3, 4, 0, 0],
        [7, 8, 0, 0],
        [11, 12, 0, 0],
    ]
    assert torch.equal(shift(IMAGE, torch.tensor([0]), torch.tensor([0])), IMAGE)


def test_shift_treats_each_image_and_channel_by_its_own() -> None:
    images = torch.randint(0, 256, (5, 3, 6, 7), dtype=torch.uint8)
    down, right = torch.tensor([0, 1, -1, 2, -2]), torch.tensor([2, 0, 1, -2, -1])
    moved = shift(images, down, right)
    for index in range(5):
        padded = torch.nn.functional.pad(images[index], (2, 2, 2, 2))
        top, left = 2 - int(down[index]), 2 - int(right[index])
        assert torch.equal(moved[index], padded[:, top : top + 6, left : left + 7])


def test_cutout_blackens_one_square() -> None:
    cut = cutout(IMAGE, torch.tensor([-1]), torch.tensor([2]), size=3)
    assert cut[0, 0].tolist() == [[1, 2, 0, 0], [5, 6, 0, 0], [9, 10, 11, 12], [13, 14, 15, 16]]


@pytest.mark.parametrize("policy", sorted(set(POLICIES) - {"none"}))
def test_a_policy_depends_on_seed_epoch_and_sample_alone(policy: str) -> None:
    images = torch.randint(1, 256, (64, 1, 12, 12), dtype=torch.uint8)
    samples = torch.arange(64)
    augment = Augmentation(policy, seed=5)
    whole = augment(images, samples, epoch=1)
    order = torch.randperm(64)
    torch.manual_seed(1)
    assert torch.equal(augment(images[order], samples[order], 1), whole[order])
    assert torch.equal(augment(images[7:8], samples[7:8], 1), whole[7:8])
    assert not torch.equal(augment(images, samples, epoch=2), whole)
    assert not torch.equal(Augmentation(policy, seed=6)(images, samples, 1), whole)
    assert whole.dtype == torch.uint8


def test_no_policy_leaves_the_images_alone() -> None:
    assert Augmentation("none", 0)(IMAGE, torch.tensor([0]), 1) is IMAGE


def test_all_shifts_and_both_sides_come_equally_often() -> None:
    image = torch.zeros(4000, 1, 9, 9, dtype=torch.uint8)
    image[:, :, 4, 4] = 255
    moved = Augmentation("shift", 0)(image, torch.arange(4000), 1)
    counts = (moved > 0).sum(0)[0, 2:7, 2:7]
    assert counts.sum() == 4000
    assert counts.min() > 100
    assert counts.max() < 220
