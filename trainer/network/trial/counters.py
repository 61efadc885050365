"""Numbers and lists in plain Python that grow with a network's passes, and whether they matter."""

from __future__ import annotations

import contextlib
import copy
import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from numbers import Real
from typing import Any

from torch import nn

from trainer.network.trial.attributes import Attribute, Setter, attributes, numbers

LARGE_COUNT = 9_009_000
"""a number that a counter may come to: a multiple of 1,000 and of all numbers up to 16 but 16"""

_LARGEST_STEP = 4
"""a number that grows by more with an evaluation is a size and not a counter"""
_MOST_LIMITS = 4
"""of the numbers with which a counter is compared, the smallest"""
_LONGER = 1_000
"""times as many items as a list has"""

_COMPARING = ("__lt__", "__le__", "__gt__", "__ge__", "__eq__", "__ne__")
_DIVIDING = ("__mod__", "__floordiv__", "__truediv__")
_ADDING = ("__add__", "__radd__", "__sub__")

Setting = tuple[str, Setter, Any, Any]
"""name, what sets it, its value now, and another one to be tried"""


class Counters:
    """Numbers that grow, or shrink, in every pass, and lists that become longer.

    Args:
        module: before its first pass.
    """

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self.steps: dict[str, list[float]] = {}
        """by how much each has changed in each pass so far"""
        self.between: dict[str, float] = {}
        """by how much some have grown with the mode and in an evaluation"""

    @contextlib.contextmanager
    def watch(self, *, between: bool = False) -> Iterator[None]:
        """Watch a training pass inside; or what is between the steps of two epochs."""
        before = self._counts()
        yield
        for name, count in self._counts().items():
            step = count - before.get(name, count)
            if not between:
                self.steps.setdefault(name, []).append(step)
            elif 0 < step <= _LARGEST_STEP:
                self.between[name] = step

    def find_influential(self, try_pass: Callable[[], str | None]) -> list[tuple[str, str]]:
        """Return the counters on which the result of a pass depends, each with how.

        Args:
            try_pass: does a pass, and returns what differs from before, if anything does.
        """
        counters = [(name, put, now, self._step(name)) for name, now, put in numbers(self.module)]
        counters = [counter for counter in counters if counter[-1]]
        compared: dict[str, set[float]] = {name: set() for name, *_ in counters}
        self._try(
            [(name, put, now, record_uses(now, compared[name])) for name, put, now, _ in counters],
            try_pass,
        )
        tried = [
            [(name, put, now, type(now)(value)) for value in _values(step, compared[name] - {now})]
            for name, put, now, step in counters
        ]
        tried += [
            [(f"the length of {name}", put, value, _longer(value))]
            for name, value, put in self._lists()
            if self._step(f"len({name})")
        ]
        for turn in range(max(map(len, tried), default=0)):
            together = [settings[turn] for settings in tried if turn < len(settings)]
            if words := self._try(together, try_pass):
                each = [(setting[0], self._try([setting], try_pass)) for setting in together]
                found = [(name, own) for name, own in each if own]
                return found or [(", ".join(name for name, *_ in together[:3]), words)]
        return []

    def _try(self, settings: Sequence[Setting], try_pass: Callable[[], str | None]) -> str | None:
        """Return what differs in a pass with these at their other values."""
        if not settings:
            return None
        for _, put, _, value in settings:
            put(value)
        try:
            return try_pass()
        finally:
            for _, put, now, _ in settings:
                put(now)

    def _step(self, name: str) -> float:
        """Return by how much it counts; 0 if it is not a counter."""
        steps = self.steps.get(name, [0])
        if all(step > 0 for step in steps) or all(step < 0 for step in steps):
            return steps[-1]
        return self.between.get(name, 0)

    def _counts(self) -> dict[str, float]:
        lengths: dict[str, float] = {f"len({n})": len(value) for n, value, _ in self._lists()}
        return lengths | {name: value for name, value, _ in numbers(self.module)}

    def _lists(self) -> list[Attribute]:
        return [found for found in attributes(self.module) if isinstance(found[1], (list, deque))]


def record_uses(number: Any, compared: set[float]) -> Any:
    """Return the same number, which records what it is compared with and divided by."""
    kind = int if isinstance(number, int) else float

    def recording(method: Any) -> Any:
        def operator(self: Any, other: Any) -> Any:
            if isinstance(other, Real) and math.isfinite(other):
                compared.add(float(other))
            return method(self, other)

        return operator

    def passing_on(method: Any) -> Any:
        def operator(self: Any, other: Any) -> Any:
            result = method(self, other)
            return result if result is NotImplemented else Recorder(result)

        return operator

    methods = {name: recording(getattr(kind, name)) for name in (*_COMPARING, *_DIVIDING)}
    methods |= {name: passing_on(getattr(kind, name)) for name in _ADDING}
    Recorder: Any = type(kind.__name__, (kind,), methods | {"__hash__": kind.__hash__})  # noqa: N806
    return Recorder(number)


def _values(step: float, compared: set[float]) -> list[float]:
    """Return large values, and those around the limits."""
    limits = sorted(compared, key=abs)[:_MOST_LIMITS]
    around = [limit + number * step for limit in limits for number in (-2, -1, 0, 1)]
    return [LARGE_COUNT, LARGE_COUNT - step, *around]


def _longer(items: Any) -> Any:
    """Return the same list, or deque, as after many more passes."""
    longer = copy.copy(items)
    longer.extend(list(items) * (_LONGER - 1))
    return longer
