"""Check arguments and draw the first weights, for all families."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn


def check_image_size(image_size: tuple[int, int], minimum: int) -> None:
    """Raise a ValueError unless both sides have at least `minimum` pixels."""
    if min(image_size) < minimum:
        height, width = image_size
        raise ValueError(
            f"images of {height}x{width} pixels are too small: it needs at least "
            f"{minimum}x{minimum}."
        )


def check_probability(name: str, value: float) -> None:
    """Raise a ValueError unless it is a probability below one."""
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not is_number or not 0.0 <= value < 1.0:
        raise ValueError(f"{name} is {value!r}, but must be a number in [0, 1).")


def check_flag(name: str, value: bool) -> None:
    """Raise a ValueError unless it is true or false."""
    if not isinstance(value, bool):
        raise ValueError(f"{name} is {value!r}, but must be true or false.")


def check_positive(name: str, value: int) -> None:
    """Raise a ValueError unless it is a whole number of at least one."""
    if type(value) is not int or value < 1:
        raise ValueError(f"{name} is {value!r}, but must be a whole number of at least 1.")


def check_widths(widths: Sequence[int]) -> None:
    """Raise a ValueError unless it is a list of widths, each a whole number above zero."""
    is_list = isinstance(widths, (list, tuple)) and len(widths) > 0
    if not is_list or any(type(width) is not int or width < 1 for width in widths):
        raise ValueError(
            f"widths is {widths!r}, but must be a list of whole numbers of at least 1, "
            f"such as [32, 64]."
        )


def initialise(layers: nn.Module) -> None:
    """Draw the weights of convolutions and linear layers that a rectifier follows; biases are 0.

    He et al.: Delving Deep into Rectifiers, 2015. Not for the last layer, which keeps torch's
    default: no rectifier follows it, and small first logits are wanted.
    """
    for layer in layers.modules():
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
