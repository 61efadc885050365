"""The arithmetic of output sizes and parameters, written out for people."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Window:
    """What slides over an image in a convolution or a pooling: one number a side."""

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    """distance of neighbouring kernel elements"""
    ceil: bool = False
    """whether a window that is only partly on the image counts"""


def sizes(window: Window, before: Sequence[int], after: Sequence[int]) -> list[str]:
    """How each side comes to its length; one line where all are alike.

    Args:
        before: height and width; of three sides the depth first, of one its length.
        after: as they came out.
    """
    lines = [_size(window, side, before[side], after[side]) for side in range(len(window.kernel))]
    if len(set(lines)) == 1:
        return [f"size {lines[0]}"]
    names = ("depth", "height", "width")[-len(lines) :]
    return [f"{name} {line}" for name, line in zip(names, lines, strict=True)]


def _size(window: Window, side: int, before: int, after: int) -> str:
    kernel, stride = window.kernel[side], window.stride[side]
    padding, dilation = window.padding[side], window.dilation[side]
    free = before + 2 * padding - dilation * (kernel - 1) - 1
    reach = f"{kernel}" if dilation == 1 else f"({dilation}*({kernel} - 1) + 1)"
    padded = f"{before} + 2*{padding} - {reach}" if padding else f"{before} - {reach}"
    if free % stride == 0:
        return f"({padded}) / {stride} + 1 = {after}"
    rounding = "ceil" if window.ceil else "floor"
    steps = -(-free // stride) if window.ceil else free // stride
    # torch leaves out a window that would begin beyond the image and its left padding.
    beyond = " - 1, as the last would begin outside" if after == steps else ""
    return f"{rounding}(({padded}) / {stride}) + 1{beyond} = {after}"


def weights(factors: Sequence[int], outputs: int, bias: bool) -> str:
    """How many parameters: the factors, and one for the bias, for each output."""
    product = "*".join(map(str, factors))
    total = (_product(factors) + bias) * outputs
    inner = f"({product} + 1)" if bias else product
    return f"parameters {inner} * {outputs} = {total:,}"


def flattened(before: Sequence[int]) -> str:
    """How many values a map of channels, height and width has."""
    return f"values {'*'.join(map(str, before))} = {_product(before):,}"


def _product(factors: Sequence[int]) -> int:
    total = 1
    for factor in factors:
        total *= factor
    return total
