"""Policies: which transforms, how strong, how often, and what they depend on."""

from __future__ import annotations

import pytest
import torch

from trainer.config.augmentations import TRANSFORMS
from trainer.data.augment import transforms
from trainer.data.augment.policy import Augmentation
from trainer.data.augment.short_form import NUMBERS, TABLE

ALL = "_".join(TRANSFORMS)


def random_images(count: int, channels: int = 1, height: int = 12, width: int = 12) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    shape = (count, channels, height, width)
    return torch.randint(1, 256, shape, dtype=torch.uint8, generator=generator)


def test_each_transform_has_numbers_of_its_own() -> None:
    assert tuple(TABLE) == TRANSFORMS
    columns = [transform.columns for transform in TABLE.values()]
    used = [number for each in columns for number in range(each.start, each.stop)]
    assert len(set(used)) == len(used)
    assert max(used) < NUMBERS


@pytest.mark.parametrize("policy", [*TRANSFORMS, "flip_shift_cutout", "crop_rotate_erase", ALL])
def test_a_policy_depends_only_on_seed_epoch_and_sample(policy: str) -> None:
    images, samples = random_images(64), torch.arange(64)
    augmentation = Augmentation(policy, seed=5)
    whole = augmentation(images, samples, epoch=1)
    order = torch.randperm(64)
    torch.manual_seed(1)
    assert torch.equal(augmentation(images[order], samples[order], 1), whole[order])
    assert not torch.equal(augmentation(images, samples, epoch=2), whole)
    assert not torch.equal(Augmentation(policy, seed=6)(images, samples, 1), whole)
    assert whole.dtype == torch.uint8


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 9, 16), (1, 3, 5), (3, 1, 1)], ids=str)
@pytest.mark.parametrize("policy", [*TRANSFORMS, ALL])
def test_the_bits_do_not_depend_on_the_batch(policy: str, shape: tuple[int, int, int]) -> None:
    images, samples = random_images(53, *shape), torch.arange(100, 153)
    augmentation = Augmentation(policy, seed=5)
    whole = augmentation(images, samples, epoch=1)
    assert whole.shape == images.shape
    for sizes in ([1] * 53, [26, 27], [0, 3, 50], [8, 45]):
        parts = zip(images.split(sizes), samples.split(sizes), strict=True)
        assert torch.equal(torch.cat([augmentation(*part, 1) for part in parts]), whole)


def test_the_order_of_the_names_does_not_matter() -> None:
    images, samples = random_images(64), torch.arange(64)
    forward, backward = (
        Augmentation("_".join(names), 0)(images, samples, 1)
        for names in (TRANSFORMS, reversed(TRANSFORMS))
    )
    assert torch.equal(forward, backward)


def test_a_transform_draws_the_same_in_every_policy() -> None:
    images, samples = random_images(64), torch.arange(64)
    flipped = Augmentation("flip", 0)(images, samples, 1)
    both = Augmentation("flip_erase", 0)(images, samples, 1)
    assert torch.equal(Augmentation("erase", 0)(flipped, samples, 1), both)


def test_without_a_policy_the_images_stay() -> None:
    images = random_images(1)
    assert Augmentation("none", 0)(images, torch.tensor([0]), 1) is images


def test_all_shifts_and_both_sides_come_equally_often() -> None:
    image = torch.zeros(4000, 1, 9, 9, dtype=torch.uint8)
    image[:, :, 4, 4] = 255
    moved = Augmentation("shift", 0)(image, torch.arange(4000), 1)
    counts = (moved > 0).sum(0)[0, 2:7, 2:7]
    assert counts.sum() == 4000
    assert counts.min() > 100
    assert counts.max() < 220


@pytest.fixture
def matrices(monkeypatch: pytest.MonkeyPatch) -> list[torch.Tensor]:
    """Record the affine matrices that are applied."""
    seen: list[torch.Tensor] = []

    def note(images: torch.Tensor, asked: torch.Tensor) -> torch.Tensor:
        seen.append(asked)
        return images

    monkeypatch.setattr(transforms, "resample", note)
    return seen


def test_angles_are_spread_evenly_to_both_sides(matrices: list[torch.Tensor]) -> None:
    Augmentation("rotate", 0)(random_images(20_000, 1, 2, 2), torch.arange(20_000), 1)
    (found,) = matrices
    degrees = torch.rad2deg(torch.atan2(found[:, 0, 1], found[:, 0, 0]))
    shares = torch.histc(degrees, bins=10, min=-15, max=15) / 20_000
    assert shares.sum() == pytest.approx(1, abs=1e-3)
    assert (shares - 0.1).abs().max() < 0.01


def test_parts_are_within_their_bounds(matrices: list[torch.Tensor]) -> None:
    Augmentation("crop", 0)(random_images(20_000, 1, 4, 8), torch.arange(20_000), 1)
    (found,) = matrices
    width, height = found[:, 0, 0], found[:, 1, 1]
    areas, aspects = width * height, width / height
    assert 0.6 <= areas.min() + 1e-6 < 0.61
    assert 0.99 < areas.max() <= 1
    assert 3 / 4 <= aspects.min() + 1e-6 < 0.77
    assert 1.31 < aspects.max() - 1e-6 <= 4 / 3
    assert (aspects > 1).float().mean() == pytest.approx(0.5, abs=0.02)
    for centre, side in ((found[:, 0, 2], width), (found[:, 1, 2], height)):
        assert (centre.abs() + side).max() <= 1
        assert centre.mean().abs() < 0.01


def test_rotate_and_crop_are_one_step(matrices: list[torch.Tensor]) -> None:
    images, samples = random_images(8), torch.arange(8)
    for policy in ("rotate", "crop", "rotate_crop"):
        Augmentation(policy, 0)(images, samples, 1)
    rotation, crop, both = matrices
    torch.testing.assert_close(both[:, :, :2], rotation[:, :, :2] @ crop[:, :, :2])


@pytest.mark.parametrize("size", [(28, 28), (12, 40), (8, 8)], ids=str)
def test_half_of_the_images_have_one_rectangle_erased(size: tuple[int, int]) -> None:
    height, width = size
    black = torch.zeros(4000, 3, height, width, dtype=torch.uint8)
    # An erased pixel differs from one of the two.
    pair = [Augmentation("erase", 0)(black + level, torch.arange(4000), 1) for level in (0, 255)]
    changed = ((pair[0] != 0) | (pair[1] != 255)).any(1)
    chosen = changed.flatten(1).any(1)
    assert chosen.float().mean() == pytest.approx(0.5, abs=0.03)
    rows, columns = changed.any(2).sum(1), changed.any(1).sum(1)
    assert torch.equal(changed.sum((1, 2)), rows * columns)
    for lines in (changed.any(2), changed.any(1)):
        # Without a gap: there is one beginning at most.
        starts = lines[:, 0].int() + (lines[:, 1:] & ~lines[:, :-1]).sum(1)
        assert torch.equal(starts, chosen.int())
    areas = (rows * columns)[chosen] / (height * width)
    assert areas.min() < 0.05
    assert 0.3 < areas.max() < 0.38  # sides are whole pixels
    free = chosen & (rows < height) & (columns < width) & (rows * columns > 20)
    aspects = (rows / columns)[free]
    assert 0.25 < aspects.min() < 0.45
    assert 2.2 < aspects.max() < 4
    # Everywhere, and in the middle more often than in the corners.
    often = changed.float().mean(0)
    assert often.min() > 0
    assert often[height // 2, width // 2] > 2 * often[0, 0]


def test_each_rectangle_and_channel_has_its_own_level() -> None:
    black = torch.zeros(2000, 3, 6, 6, dtype=torch.uint8)
    levels = Augmentation("erase", 0)(black, torch.arange(2000), 1).flatten(2)
    highest = levels.amax(2)
    assert ((levels == 0) | (levels == highest[:, :, None])).all()
    drawn = highest[highest.sum(1) > 0].double()
    assert drawn.mean() == pytest.approx(127.5, abs=6)
    assert drawn.max() > 250
    assert torch.corrcoef(drawn.T).triu(1).abs().max() < 0.1
