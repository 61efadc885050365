"""What a network remembers in plain Python: attributes of its modules, classes and file."""

from __future__ import annotations

import contextlib
import random
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn

TURNED_ON = 9_009_000
"""a number that a counter may come to; a multiple of 1,000 and of all numbers up to 16 but 16"""
MOST_NAMES = 3

_OF_EVERY_MODULE = frozenset(vars(nn.Module()))
_LARGEST_CONTAINER = 16
_FEW = 4
"""a number that grows by more with an evaluation is a size and no counter"""

Put = Callable[[Any], None]


@dataclass
class Watch:
    """The numbers of classes and files, which all networks share, as they were before."""

    shared: dict[str, tuple[Put, Any]] = field(default_factory=dict)

    def look(self, module: nn.Module) -> dict[str, Any]:
        """What stands in the attributes now, in a form that can be compared."""
        return {name: _comparable(value) for name, value, _ in _attributes(module)}


class Counters:
    """Numbers that grow by the same amount in every pass.

    Args:
        module: before its first pass.
        watch: gets the numbers that do not belong to this module alone.
    """

    def __init__(self, module: nn.Module, watch: Watch) -> None:
        self.module = module
        self.steps: dict[str, set[float]] = {}
        """by how much each has grown in the passes so far"""
        self.between: dict[str, float] = {}
        """by how much some have grown with the mode and in an evaluation"""
        for name, value, put in self._numbers():
            if " of " in name:
                watch.shared.setdefault(name, (put, value))

    @contextlib.contextmanager
    def counting(self, *, between: bool = False) -> Iterator[None]:
        """A training pass is done inside; or what is between the steps of two epochs."""
        before = {name: value for name, value, _ in self._numbers()}
        yield
        for name, value, _ in self._numbers():
            step = value - before.get(name, value)
            if not between:
                self.steps.setdefault(name, set()).add(step)
            elif 0 < step <= _FEW:
                self.between[name] = step

    def turned_on(self) -> Iterator[str]:
        """Each counter in turn, while it stands at a large number and then just before one."""
        for name, now, put in list(self._numbers()):
            steps = self.steps.get(name, set())
            step = next(iter(steps)) if len(steps) == 1 else 0
            step = step or self.between.get(name, 0)
            if not step:
                continue
            for value in (TURNED_ON, TURNED_ON - step):
                put(type(now)(value))
                yield name
                put(now)

    def _numbers(self) -> Iterator[tuple[str, Any, Put]]:
        for name, value, put in _attributes(self.module):
            if isinstance(value, (int, float)) and not isinstance(value, bool):
                yield name, value, put


def changed(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """Names of the attributes that are other than before."""
    return [name for name, value in after.items() if name not in before or before[name] != value]


def put_back(watch: Watch) -> None:
    """Give classes and files the numbers that they had."""
    for put, value in watch.shared.values():
        put(value)


def listing(names: Sequence[str]) -> str:
    """The first few of them."""
    more = f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
    return ", ".join(names[:MOST_NAMES]) + more


def _attributes(module: nn.Module) -> Iterator[tuple[str, Any, Put]]:
    """Name, value, and what sets another value; also of what is in small containers."""
    seen: set[int] = set()
    for path, part in module.named_modules():
        own = {key: value for key, value in vars(part).items() if key not in _OF_EVERY_MODULE}
        for key, value in own.items():
            yield from _inside(
                f"{path}.{key}" if path else str(key), value, partial(_set, part, key)
            )
        for kind in type(part).__mro__:
            file = sys.modules.get(kind.__module__)
            if kind.__module__.partition(".")[0] in ("torch", "builtins") or file is None:
                continue
            for place, label in ((kind, kind.__name__), (file, "its file")):
                if id(place) in seen:
                    continue
                seen.add(id(place))
                for key, value in list(vars(place).items()):
                    if not key.startswith("__") and isinstance(value, (int, float, dict, list)):
                        yield from _inside(f"{key} of {label}", value, partial(setattr, place, key))


def _set(part: nn.Module, key: str, value: Any) -> None:
    vars(part)[key] = value


def _inside(name: str, value: Any, put: Put) -> Iterator[tuple[str, Any, Put]]:
    yield name, value, put
    if isinstance(value, (dict, list)) and len(value) <= _LARGEST_CONTAINER:
        items = list(value.items() if isinstance(value, dict) else enumerate(value))
        for key, inner in items:
            if isinstance(inner, (int, float)):
                yield f"{name}[{key!r}]", inner, partial(value.__setitem__, key)


def _comparable(value: Any) -> Any:
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, torch.Tensor):
        return (tuple(value.shape), float(value.detach().abs().double().nan_to_num().sum()))
    if isinstance(value, torch.Generator):
        return bytes(value.get_state().tolist())
    if isinstance(value, np.random.Generator):
        return str(value.bit_generator.state)
    if isinstance(value, np.random.RandomState):
        return str(value.get_state())
    if isinstance(value, random.Random):
        return value.getstate()
    if isinstance(value, (list, tuple, dict, set)):
        return (type(value).__name__, len(value))
    return type(value).__name__
