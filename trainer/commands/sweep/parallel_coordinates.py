"""Where the lines of parallel coordinates go: an axis for each key, a line for each trial."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from trainer.commands.sweep.space import Choices, Range

HEIGHT = 360
TOP, BOTTOM = 48, 330
_SPACING = 200
_MARGIN = 110
_LONGEST_LABEL = 22


@dataclass(frozen=True)
class Axis:
    """A vertical axis."""

    name: str
    x: float
    ticks: tuple[tuple[float, str], ...]
    """the height and the label of each"""


@dataclass(frozen=True)
class Line:
    """A trial's line from axis to axis."""

    points: str
    """as SVG has them"""
    kind: str
    """best, one of the best five; complete or pruned"""
    title: str


@dataclass(frozen=True)
class Plot:
    """Everything that the template draws, in pixels."""

    width: float
    height: int
    top: int
    bottom: int
    axes: tuple[Axis, ...]
    lines: tuple[Line, ...]


def place(of: Choices | Range, label: Any) -> float:
    """Return the height of a value on the axis of its key, from 0 at the bottom to 1."""
    if isinstance(of, Choices):
        return _share(of.labels.index(label), 0, len(of.labels) - 1)
    if of.log:
        return _share(math.log(label), math.log(of.low), math.log(of.high))
    return _share(label, of.low, of.high)


def axis_of(name: str, of: Choices | Range, number: int) -> Axis:
    """Return the axis of a key, the one of this number from the left."""
    labels = of.labels if isinstance(of, Choices) else [of.low, of.high]
    ticks = tuple((height_of(place(of, label)), _short(label)) for label in labels)
    return Axis(name, x_of(number), ticks)


def figure_axis(name: str, low: float, high: float, texts: Sequence[str], number: int) -> Axis:
    """Return the axis of the figure, with texts for its ends."""
    heights = (height_of(_share(low, low, high)), height_of(_share(high, low, high)))
    return Axis(name, x_of(number), tuple(zip(heights, texts, strict=True)))


def figure_place(figure: float, low: float, high: float) -> float:
    """Return the height of a figure on its axis, from 0 to 1."""
    return _share(figure, low, high)


def points_of(places: Sequence[float]) -> str:
    """Return the points of a line, given its height on each axis."""
    return " ".join(f"{x_of(number):.1f},{height_of(at):.1f}" for number, at in enumerate(places))


def width_of(axes: int) -> float:
    """Return the width of a plot."""
    return 2 * _MARGIN + _SPACING * (axes - 1)


def x_of(number: int) -> float:
    """Return where the axis of a number is."""
    return _MARGIN + _SPACING * number


def height_of(at: float) -> float:
    """Return the y of a height from 0 to 1."""
    return BOTTOM - (BOTTOM - TOP) * at


def _share(value: float, low: float, high: float) -> float:
    return 0.5 if high == low else (value - low) / (high - low)


def _short(label: Any) -> str:
    text = f"{label:g}" if isinstance(label, float) else str(label)
    return text if len(text) <= _LONGEST_LABEL else f"{text[: _LONGEST_LABEL - 1]}…"
