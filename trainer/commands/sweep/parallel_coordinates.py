"""Where the lines of parallel coordinates go: an axis for each key, a line for each trial."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from trainer.commands.sweep.space import Choices, Range, word_of

HEIGHT = 380
TOP, BOTTOM = 68, 350
_WIDTH = 980
"""of the page, which the plot fits where the axes are not too many"""
_WIDEST, _NARROWEST = 200, 96
"""from axis to axis"""
_MARGIN = 100
_NAME_WIDTH = 170
"""of a long one; where axes are nearer, their names stand in two lines"""
_LABEL_GAP, _LETTER = 14, 6.7


@dataclass(frozen=True)
class Axis:
    """A vertical axis."""

    name: str
    x: float
    name_y: float
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


class Layout:
    """Where the axes stand.

    Args:
        count: of the axes, that of the figure is the last.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        free = (_WIDTH - 2 * _MARGIN) / (count - 1)
        self._spacing = min(max(free, _NARROWEST), _WIDEST)
        self.width = 2 * _MARGIN + self._spacing * (count - 1)

    def axis_of(self, name: str, of: Choices | Range, number: int) -> Axis:
        """Return the axis of a key, the one of this number from the left."""
        labels = of.labels if isinstance(of, Choices) else [of.low, of.high]
        values = of.values if isinstance(of, Choices) else labels
        longest = int((self._spacing - _LABEL_GAP) / _LETTER)
        ticks = tuple(
            (height_of(place(of, label)), _short(value, longest))
            for label, value in zip(labels, values, strict=True)
        )
        return self._axis(name, number, ticks)

    def figure_axis(self, name: str, low: float, high: float, texts: Sequence[str]) -> Axis:
        """Return the axis of the figure, with texts for its ends."""
        heights = (height_of(_share(low, low, high)), height_of(_share(high, low, high)))
        return self._axis(name, self._count - 1, tuple(zip(heights, texts, strict=True)))

    def points_of(self, places: Sequence[float]) -> str:
        """Return the points of a line, given its height on each axis."""
        return " ".join(
            f"{self._x(number):.1f},{height_of(at):.1f}" for number, at in enumerate(places)
        )

    def _axis(self, name: str, number: int, ticks: tuple[tuple[float, str], ...]) -> Axis:
        is_lower = self._spacing >= _NAME_WIDTH or number % 2 == 1
        return Axis(name, self._x(number), TOP - (24 if is_lower else 44), ticks)

    def _x(self, number: int) -> float:
        return round(_MARGIN + self._spacing * number, 1)


def figure_place(figure: float, low: float, high: float) -> float:
    """Return the height of a figure on its axis, from 0 to 1."""
    return _share(figure, low, high)


def height_of(at: float) -> float:
    """Return the y of a height from 0 to 1."""
    return BOTTOM - (BOTTOM - TOP) * at


def _share(value: float, low: float, high: float) -> float:
    return 0.5 if high == low else (value - low) / (high - low)


def _short(value: Any, longest: int) -> str:
    """Return a value in so many letters: its beginning and its end, where choices differ."""
    if isinstance(value, float):
        return f"{value:g}"
    text = word_of(value)
    if isinstance(value, (list, dict)):
        text = "".join(letter for letter in text if letter not in '"{}')
    if len(text) <= longest:
        return text
    end = longest // 2
    return f"{text[: longest - end - 1]}…{text[-end:]}"
