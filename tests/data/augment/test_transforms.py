"""Transforms do to pixels what slow programs do to one image."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest
import torch

from trainer.data.augment.transforms import (
    compose,
    crop,
    cutout,
    erase,
    flip,
    rectangles,
    resample,
    rotation,
    shift,
)

SHAPES = [(1, 28, 28), (3, 9, 16), (1, 12, 5), (3, 1, 1), (1, 1, 7)]
"""channels, height and width"""

IMAGE = torch.arange(1, 17, dtype=torch.uint8).view(1, 1, 4, 4)


def test_flip_mirrors_only_the_chosen() -> None:
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


def test_a_rectangle_is_cut_off_at_the_border_and_may_be_empty() -> None:
    top, left = torch.tensor([-1, 2, 1]), torch.tensor([2, -3, 1])
    height, width = torch.tensor([3, 9, 0]), torch.tensor([1, 4, 2])
    inside = rectangles(torch.Size((3, 3, 4, 5)), top, left, height, width)[:, 0].int()
    assert inside[0].tolist() == [[0, 0, 1, 0, 0]] * 2 + [[0] * 5] * 2
    assert inside[1].tolist() == [[0] * 5] * 2 + [[1, 0, 0, 0, 0]] * 2
    assert not inside[2].any()


def test_erase_fills_with_one_level_a_channel() -> None:
    images = IMAGE.repeat(2, 3, 1, 1)
    erased = torch.zeros(2, 1, 4, 4, dtype=torch.bool)
    erased[0, 0, 1:, 2:] = True
    levels = torch.tensor([[0, 100, 255], [7, 7, 7]], dtype=torch.uint8)
    filled = erase(images, erased, levels)
    assert filled.dtype == torch.uint8
    for channel, level in enumerate((0, 100, 255)):
        assert (filled[0, channel, 1:, 2:] == level).all()
        assert torch.equal(filled[0, channel, 0], IMAGE[0, 0, 0])
        assert torch.equal(filled[0, channel, :, :2], IMAGE[0, 0, :, :2])
    assert torch.equal(filled[1], images[1])


def tangents(degrees: list[float]) -> torch.Tensor:
    return torch.tensor([math.tan(math.radians(angle / 2)) for angle in degrees])


def test_a_quarter_turn_is_clockwise_and_exact() -> None:
    turned = resample(IMAGE, rotation(tangents([90]), 4, 4))
    assert torch.equal(turned, IMAGE.rot90(-1, (2, 3)))
    assert torch.equal(resample(IMAGE, rotation(tangents([0]), 4, 4)), IMAGE)


def test_pixels_turned_in_from_outside_are_black() -> None:
    white = torch.full((1, 1, 21, 21), 255, dtype=torch.uint8)
    turned = resample(white, rotation(tangents([45]), 21, 21))[0, 0]
    assert [turned[row, column].item() for row in (0, 20) for column in (0, 20)] == [0] * 4
    assert (turned[5:16, 5:16] == 255).all()


def test_the_whole_image_as_its_part_changes_nothing() -> None:
    images = random_images((3, 9, 16), 5)
    matrices = crop(torch.ones(5, 2), torch.rand(5, 2), 9, 16)
    assert torch.equal(resample(images, matrices), images)


def test_a_crop_enlarges_a_part_and_never_looks_outside() -> None:
    # Each pixel's level is its place, so that the part can be read off the result.
    ramp = torch.arange(0, 200, 10, dtype=torch.uint8).expand(1, 1, 20, 20)
    sides = torch.tensor([[0.5, 1.0]] * 3)
    places = torch.tensor([[0.0, 0.5], [0.25, 0.5], [1.0, 0.5]])
    parts = resample(ramp.repeat(3, 1, 1, 1), crop(sides, places, 20, 20))[:, 0, 0]
    assert parts[:, [0, -1]].tolist() == [[0, 95], [24, 119], [95, 190]]
    white = torch.full((64, 1, 5, 9), 255, dtype=torch.uint8)
    corners = torch.rand(64, 2).round()
    assert (resample(white, crop(torch.rand(64, 2) * 0.6 + 0.4, corners, 5, 9)) == 255).all()


def random_images(shape: tuple[int, int, int], count: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(256, (count, *shape), dtype=torch.uint8, generator=generator)


def slowly_resampled(
    image: npt.NDArray[np.uint8], degrees: float, sides: list[float], places: list[float]
) -> npt.NDArray[np.float64]:
    """Turn an image clockwise and enlarge a part of it, pixel by pixel, in units of pixels."""

    def edge(axis: int, pixels: int) -> float:
        """Where the part begins; half of a pixel's blur stays within the image."""
        centred = (1 - sides[axis]) * pixels / 2
        return centred + (2 * places[axis] - 1) * (1 - sides[axis]) * (pixels - 1) / 2

    channels, height, width = image.shape
    padded = np.zeros((channels, height + 2, width + 2))
    padded[:, 1:-1, 1:-1] = image
    cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    result = np.zeros(image.shape)
    for row in range(height):
        for column in range(width):
            across = edge(0, width) + (column + 0.5) * sides[0] - width / 2
            down = edge(1, height) + (row + 0.5) * sides[1] - height / 2
            x = cosine * across + sine * down + width / 2 - 0.5
            y = cosine * down - sine * across + height / 2 - 0.5
            left, top = math.floor(x), math.floor(y)
            for i, weight_y in ((top, 1 - (y - top)), (top + 1, y - top)):
                for j, weight_x in ((left, 1 - (x - left)), (left + 1, x - left)):
                    if -1 <= i <= height and -1 <= j <= width:
                        result[:, row, column] += weight_y * weight_x * padded[:, i + 1, j + 1]
    return result


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_rotation_and_crop_in_one_step_against_pixel_by_pixel(shape: tuple[int, int, int]) -> None:
    images, degrees = random_images(shape, 6), [-15.0, -7.3, 0.0, 3.1, 12.5, 40.0]
    generator = torch.Generator().manual_seed(1)
    sides = torch.rand(6, 2, generator=generator) * 0.5 + 0.5
    places = torch.rand(6, 2, generator=generator)
    height, width = shape[1:]
    matrices = compose(
        rotation(tangents(degrees), height, width), crop(sides, places, height, width)
    )
    fast = resample(images, matrices)
    assert fast.dtype == torch.uint8
    for index, image in enumerate(images.numpy()):
        slow = slowly_resampled(
            image, degrees[index], sides[index].tolist(), places[index].tolist()
        )
        # Half a level from rounding, and some from float32's places.
        assert np.abs(fast[index].numpy() - slow).max() < 0.51
