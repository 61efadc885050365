"""Numbers and lists in plain Python that grow with a network's passes, and whether they matter."""

from __future__ import annotations

import contextlib
import copy
import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from numbers import Real
from typing import Any

import torch
from torch import nn

from trainer.network.trial.attributes import Put, Watch, attributes, listing

TURNED_ON = 9_009_000
"""a number that a counter may come to; a multiple of 1,000 and of all numbers up to 16 but 16"""

_FEW = 4
"""a number that grows by more with an evaluation is a size and no counter"""
_MOST_LIMITS = 4
"""of the numbers with which a counter is compared, the smallest"""
_LONGER = 1_000
"""times as many items as a list has"""

_COMPARING = ("__lt__", "__le__", "__gt__", "__ge__", "__eq__", "__ne__")
_DIVIDING = ("__mod__", "__floordiv__", "__truediv__")
_ADDING = ("__add__", "__radd__", "__sub__")

Setting = tuple[str, Put, Any, Any]
"""name, what sets it, its value now, and another one to be tried"""


class Counters:
    """Numbers that grow, or shrink, in every pass, and lists that become longer.

    Args:
        module: before its first pass.
        watch: gets the numbers that do not belong to this module alone.
    """

    def __init__(self, module: nn.Module, watch: Watch) -> None:
        self.module = module
        self.steps: dict[str, list[float]] = {}
        """by how much each has changed in each pass so far"""
        self.between: dict[str, float] = {}
        """by how much some have grown with the mode and in an evaluation"""
        for name, value, put in self._numbers():
            if " of " in name:
                watch.shared.setdefault(name, (put, value))

    @contextlib.contextmanager
    def counting(self, *, between: bool = False) -> Iterator[None]:
        """A training pass is done inside; or what is between the steps of two epochs."""
        before = self._counts()
        yield
        for name, count in self._counts().items():
            step = count - before.get(name, count)
            if not between:
                self.steps.setdefault(name, []).append(step)
            elif 0 < step <= _FEW:
                self.between[name] = step

    def that_matter(self, other: Callable[[], str | None]) -> list[tuple[str, str]]:
        """Those on which it depends what a pass computes, each with how.

        Args:
            other: does a pass, and says what is other than it was, if anything is.
        """
        counters = [
            (name, put, now, step)
            for name, now, put in self._numbers()
            if (step := self._step(name))
        ]
        compared: dict[str, set[float]] = {name: set() for name, *_ in counters}
        self._differs(
            [(n, put, now, noting(now, compared[n])) for n, put, now, _ in counters], other
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
            if words := self._differs(together, other):
                alone = [(setting[0], self._differs([setting], other)) for setting in together]
                found = [(name, own) for name, own in alone if own]
                return found or [(listing([name for name, *_ in together]), words)]
        return []

    def _differs(self, settings: Sequence[Setting], other: Callable[[], str | None]) -> str | None:
        """What is other in a pass while these stand at their other values."""
        if not settings:
            return None
        for _, put, _, value in settings:
            put(value)
        try:
            return other()
        finally:
            for _, put, now, _ in settings:
                put(now)

    def _step(self, name: str) -> float:
        """By how much it counts; 0 where it is no counter."""
        steps = self.steps.get(name, [0])
        if all(step > 0 for step in steps) or all(step < 0 for step in steps):
            return steps[-1]
        return self.between.get(name, 0)

    def _counts(self) -> dict[str, float]:
        lengths: dict[str, float] = {f"len({n})": len(value) for n, value, _ in self._lists()}
        return lengths | {name: value for name, value, _ in self._numbers()}

    def _lists(self) -> Iterator[tuple[str, Any, Put]]:
        for name, value, put in attributes(self.module):
            if isinstance(value, (list, deque)):
                yield name, value, put

    def _numbers(self) -> Iterator[tuple[str, Any, Put]]:
        for name, value, put in list(attributes(self.module)):
            if isinstance(value, torch.Tensor):
                if value.ndim == 0 and value.dtype in (torch.int64, torch.int32, torch.float32):
                    yield name, value.item(), _as_tensor(put, value)
            elif isinstance(value, (int, float)) and not isinstance(value, bool):
                yield name, value, put


def noting(number: Any, compared: set[float]) -> Any:
    """The same number, which notes with what it is compared, and by what it is divided."""
    kind = int if isinstance(number, int) else float

    def noted(method: Any) -> Any:
        def operator(self: Any, other: Any) -> Any:
            if isinstance(other, Real) and math.isfinite(other):
                compared.add(float(other))
            return method(self, other)

        return operator

    def kept(method: Any) -> Any:
        def operator(self: Any, other: Any) -> Any:
            result = method(self, other)
            return result if result is NotImplemented else Noting(result)

        return operator

    methods = {name: noted(getattr(kind, name)) for name in (*_COMPARING, *_DIVIDING)}
    methods |= {name: kept(getattr(kind, name)) for name in _ADDING}
    Noting: Any = type(kind.__name__, (kind,), methods | {"__hash__": kind.__hash__})  # noqa: N806
    return Noting(number)


def _values(step: float, compared: set[float]) -> list[float]:
    """Large ones, and those around the limits."""
    limits = sorted(compared, key=abs)[:_MOST_LIMITS]
    around = [limit + number * step for limit in limits for number in (-2, -1, 0, 1)]
    return [TURNED_ON, TURNED_ON - step, *around]


def _longer(items: Any) -> Any:
    """The same list, or deque, after many more passes."""
    longer = copy.copy(items)
    longer.extend(list(items) * (_LONGER - 1))
    return longer


def _as_tensor(put: Put, like: torch.Tensor) -> Put:
    return lambda number: put(torch.full_like(like, number))
