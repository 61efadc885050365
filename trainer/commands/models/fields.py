"""Receptive fields: how much of the image one value of a map has seen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from trainer.commands.models.arithmetic import Window


@dataclass(frozen=True)
class Part:
    """A part of the image; its border may lie outside of it, in the padding."""

    size: tuple[int, ...]
    """height and width in pixels"""
    jump: tuple[int, ...]
    """how far the parts of neighbouring values are apart"""


Field = Part | Literal["all"] | None
"""the part, the whole image, or not well defined"""

PIXEL = Part((1, 1), (1, 1))


def slide(window: Window, field: Field) -> Field:
    """What the values see that a window makes of values with `field`."""
    if not isinstance(field, Part) or len(field.size) != len(window.kernel):
        return field if field == "all" else None
    reach = [d * (k - 1) for d, k in zip(window.dilation, window.kernel, strict=True)]
    return Part(
        tuple(s + r * j for s, r, j in zip(field.size, reach, field.jump, strict=True)),
        tuple(j * s for j, s in zip(field.jump, window.stride, strict=True)),
    )


def join(fields: Sequence[Field]) -> Field:
    """What the values see that come of one value each of several maps: their largest part."""
    if None in fields:
        return None
    if "all" in fields:
        return "all"
    parts = [field for field in fields if isinstance(field, Part)]
    if len({part.jump for part in parts}) != 1:
        return None
    largest = tuple(max(sides) for sides in zip(*(part.size for part in parts), strict=True))
    return Part(largest, parts[0].jump)
