"""The operations that TrivialAugment, RandAugment and AugMix draw from, and how strong they are.

An operation has a level between 0 and 1 and moves along a range, such as from 8 to 2 bits. Those
that have two directions take one at random. Shears are about the image's middle, and shifts are
shares of the image's sides, not pixels.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping

import torch

from trainer.data.augment import colours, transforms
from trainer.data.augment.canvas import Canvas

Ranges = Mapping[str, tuple[float, float]]
"""of each operation its values at the levels 0 and 1"""

TRIVIAL_AUGMENT_WIDE: Ranges = {
    "identity": (0, 0),
    "shear_x": (0, 0.99),
    "shear_y": (0, 0.99),
    "translate_x": (0, 32 / 224),
    "translate_y": (0, 32 / 224),
    "rotate": (0, 135),
    "brightness": (0, 0.99),
    "saturation": (0, 0.99),
    "contrast": (0, 0.99),
    "sharpness": (0, 0.99),
    "posterize": (8, 2),
    "solarize": (256, 0),
    "auto_contrast": (0, 0),
    "equalize": (0, 0),
}
"""Müller, Hutter: TrivialAugment: Tuning-free Yet State-of-the-Art Data Augmentation, ICCV 2021,
the wide space; 32 pixels are a share of ImageNet's usual 224"""

RAND_AUGMENT: Ranges = {
    "identity": (0, 0),
    "shear_x": (0, 0.3),
    "shear_y": (0, 0.3),
    "translate_x": (0, 150 / 331),
    "translate_y": (0, 150 / 331),
    "rotate": (0, 30),
    "brightness": (0, 0.9),
    "saturation": (0, 0.9),
    "contrast": (0, 0.9),
    "sharpness": (0, 0.9),
    "posterize": (8, 4),
    "solarize": (256, 0),
    "auto_contrast": (0, 0),
    "equalize": (0, 0),
}
"""Cubuk, Zoph, Shlens, Le: RandAugment: Practical Automated Data Augmentation with a Reduced Search
Space, NeurIPS 2020; with AutoAugment's ranges, 150 pixels of 331"""

AUG_MIX: Ranges = {
    "auto_contrast": (0, 0),
    "equalize": (0, 0),
    "posterize": (4, 0),
    "rotate": (0, 30),
    "solarize": (256, 0),
    "shear_x": (0, 0.3),
    "shear_y": (0, 0.3),
    "translate_x": (0, 1 / 3),
    "translate_y": (0, 1 / 3),
}
"""Hendrycks, Mu, Cubuk, Zoph, Gilmer, Lakshminarayanan: AugMix: A Simple Data Processing Method to
Improve Robustness and Uncertainty, ICLR 2020"""

TURN = 2**14
"""steps of a whole turn: at the border of an image of 1,000 pixels one is a fifth of a pixel"""


def apply_each(
    canvas: Canvas,
    chosen: torch.Tensor,
    ranges: Ranges,
    operations: torch.Tensor,
    levels: torch.Tensor,
    directions: torch.Tensor,
) -> None:
    """Apply one operation to each of the chosen images, int64 (k,).

    Args:
        operations: which, drawn evenly from [0, 1), float32 (k,).
        levels: between 0 and 1, float32 (k,).
        directions: below a half is down, float32 (k,).
    """
    numbers = (operations * len(ranges)).long()
    signs = torch.where(directions < 0.5, -1.0, 1.0)
    for number, (operation, (begin, end)) in enumerate(ranges.items()):
        members = (numbers == number).nonzero()[:, 0]
        if len(members):
            values = begin + (end - begin) * levels[members]
            apply(canvas, chosen[members], operation, values, signs[members])


def apply(
    canvas: Canvas, chosen: torch.Tensor, operation: str, values: torch.Tensor, signs: torch.Tensor
) -> None:
    """Apply an operation to the chosen images, int64 (k,).

    Args:
        values: how strongly, as in the tables above, float32 (k,).
        signs: directions, -1 or 1, float32 (k,).
    """
    signed = signs * values
    if operation in _GEOMETRY:
        canvas.move(chosen, _matrices(operation, signed, *canvas.size))
    elif operation in _ENHANCEMENTS:
        canvas.edit(chosen, _ENHANCEMENTS[operation], 1 + signed)
    elif operation in _OF_WHOLE_VALUES:
        canvas.edit(chosen, _OF_WHOLE_VALUES[operation], values.round().long())
    elif operation in _WITHOUT_VALUES:
        canvas.edit(chosen, _WITHOUT_VALUES[operation])


def rotation(degrees: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Return matrices of turns by degrees clockwise, float32 (k,), as `resample` takes them."""
    return transforms.turn(*cosines_and_sines(degrees / 360), height, width)


def _matrices(operation: str, values: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Return matrices of an operation, float32 (k, 2, 3), as `resample` takes them."""
    if operation == "rotate":
        return rotation(values, height, width)
    row, column, factor = {
        "shear_x": (0, 1, height / width),
        "shear_y": (1, 0, width / height),
        "translate_x": (0, 2, 2.0),
        "translate_y": (1, 2, 2.0),
    }[operation]
    matrices = torch.eye(2, 3).repeat(len(values), 1, 1)
    matrices[:, row, column] = factor * values
    return matrices


_GEOMETRY = ("rotate", "shear_x", "shear_y", "translate_x", "translate_y")

_ENHANCEMENTS = {
    "brightness": colours.brightness,
    "saturation": colours.saturation,
    "contrast": colours.contrast,
    "sharpness": colours.sharpness,
}

_OF_WHOLE_VALUES = {"posterize": colours.posterize, "solarize": colours.solarize}

_WITHOUT_VALUES = {"auto_contrast": colours.auto_contrast, "equalize": colours.equalize}


def cosines_and_sines(turns: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the cosines and sines of angles in whole turns, float32 (k,), to 1 / TURN."""
    steps = (turns * TURN).round().long().remainder(TURN)
    table = _circle()
    return table[0, steps], table[1, steps]


@functools.cache
def _circle() -> torch.Tensor:
    """Return cosines and sines of a turn's steps: float32 (2, TURN).

    From Python's numbers, as a vector unit may round its own differently.
    """
    angles = [2 * math.pi * step / TURN for step in range(TURN)]
    return torch.tensor([list(map(math.cos, angles)), list(map(math.sin, angles))])
