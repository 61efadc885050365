"""Sizes of layer outputs and the receptive fields of their values, with the sums written out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Window:
    """The window that a convolution or a pooling slides over an image: one number a side."""

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    """distance of neighbouring kernel elements"""
    ceil: bool = False
    """whether a window that is only partly on the image counts"""


@dataclass(frozen=True)
class Region:
    """The region of the image that one value depends on; it may reach into the padding."""

    size: tuple[int, ...]
    """height and width in pixels"""
    step: tuple[int, ...]
    """distance between the regions of neighbouring values, in pixels"""


ReceptiveField = Region | Literal["all"] | None
"""a region, the whole image, or not well defined"""

PIXEL = Region((1, 1), (1, 1))


def through_window(window: Window, field: ReceptiveField) -> ReceptiveField:
    """Return the receptive field of a window's outputs, given that of its inputs."""
    if not isinstance(field, Region) or len(field.size) != len(window.kernel):
        return field if field == "all" else None
    reach = [d * (k - 1) for d, k in zip(window.dilation, window.kernel, strict=True)]
    return Region(
        tuple(s + r * j for s, r, j in zip(field.size, reach, field.step, strict=True)),
        tuple(j * s for j, s in zip(field.step, window.stride, strict=True)),
    )


def union(fields: Sequence[ReceptiveField]) -> ReceptiveField:
    """Return the receptive field of values that depend on one value each of several maps."""
    if None in fields:
        return None
    if "all" in fields:
        return "all"
    regions = [field for field in fields if isinstance(field, Region)]
    if len({region.step for region in regions}) != 1:
        return None
    largest = tuple(max(sides) for sides in zip(*(region.size for region in regions), strict=True))
    return Region(largest, regions[0].step)


def window_arithmetic(window: Window, before: Sequence[int], after: Sequence[int]) -> list[str]:
    """Write out how the length of each side follows; one line where all sides are alike.

    Args:
        before, after: height and width of the layer's input and output; for three sides depth
            first, for one side its length.
    """
    lines = [_side(window, side, before[side], after[side]) for side in range(len(window.kernel))]
    if len(set(lines)) == 1:
        return [f"size {lines[0]}"]
    names = ("depth", "height", "width")[-len(lines) :]
    return [f"{name} {line}" for name, line in zip(names, lines, strict=True)]


def _side(window: Window, side: int, before: int, after: int) -> str:
    kernel, stride = window.kernel[side], window.stride[side]
    padding, dilation = window.padding[side], window.dilation[side]
    free = before + 2 * padding - dilation * (kernel - 1) - 1
    reach = f"{kernel}" if dilation == 1 else f"({dilation}*({kernel} - 1) + 1)"
    padded = f"{before} + 2*{padding} - {reach}" if padding else f"{before} - {reach}"
    if free % stride == 0:
        return f"({padded}) / {stride} + 1 = {after}"
    rounding = "ceil" if window.ceil else "floor"
    steps = -(-free // stride) if window.ceil else free // stride
    # torch drops a window that would begin beyond the image and its left padding.
    dropped = " - 1, as the last would begin outside" if after == steps else ""
    return f"{rounding}(({padded}) / {stride}) + 1{dropped} = {after}"


def parameter_arithmetic(factors: Sequence[int], outputs: int, bias: bool) -> str:
    """Write out the number of parameters: the factors, and one for the bias, for each output."""
    product = "*".join(map(str, factors))
    inner = f"({product} + 1)" if bias else product
    return f"parameters {inner} * {outputs} = {(math.prod(factors) + bias) * outputs:,}"


def flatten_arithmetic(before: Sequence[int]) -> str:
    """Write out how many values a map of channels, height and width has."""
    return f"values {'*'.join(map(str, before))} = {math.prod(before):,}"
