"""What a network keeps in plain Python: attributes of its modules, classes and file."""

from __future__ import annotations

import random
import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn

MOST_NAMES = 3

_OF_EVERY_MODULE = frozenset(vars(nn.Module()))
_LARGEST_CONTAINER = 16

_REMEMBERING = (
    *(int, float, dict, list, deque, torch.Tensor),
    *(torch.Generator, np.random.Generator, np.random.RandomState, random.Random),
)
"""what is looked at in classes and files"""

Put = Callable[[Any], None]


@dataclass
class Watch:
    """The numbers of classes and files, which all networks share, as they were before."""

    shared: dict[str, tuple[Put, Any]] = field(default_factory=dict)

    def look(self, module: nn.Module) -> dict[str, Any]:
        """What stands in the attributes now, in a form that can be compared."""
        return {name: _comparable(value) for name, value, _ in attributes(module)}


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


def attributes(module: nn.Module) -> Iterator[tuple[str, Any, Put]]:
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
                    if not key.startswith("__") and isinstance(value, _REMEMBERING):
                        yield from _inside(f"{key} of {label}", value, partial(setattr, place, key))


def _set(part: nn.Module, key: str, value: Any) -> None:
    vars(part)[key] = value


def _inside(name: str, value: Any, put: Put) -> Iterator[tuple[str, Any, Put]]:
    yield name, value, put
    if isinstance(value, (dict, list)) and len(value) <= _LARGEST_CONTAINER:
        items = list(value.items() if isinstance(value, dict) else enumerate(value))
        for key, inner in items:
            if isinstance(inner, (int, float, torch.Tensor, nn.Module)):
                yield f"{name}[{key!r}]", inner, partial(value.__setitem__, key)
    elif _is_of_user(value):
        for key, inner in list(vars(value).items()):
            yield f"{name}.{key}", inner, partial(setattr, value, key)


def _is_of_user(value: Any) -> bool:
    """Whether it is an object that the network's own code, or a package of it, has made."""
    kind = type(value)
    root = kind.__module__.partition(".")[0]
    known = root in sys.stdlib_module_names or root in ("torch", "numpy")
    return not known and not isinstance(value, nn.Module) and hasattr(value, "__dict__")


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
    if isinstance(value, nn.Module):
        return [_comparable(parameter) for parameter in value.parameters()]
    if isinstance(value, (list, tuple, dict, set, deque)):
        return (type(value).__name__, len(value))
    return type(value).__name__
