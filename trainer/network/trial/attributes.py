"""What a network keeps in plain Python: attributes of its modules, classes and file."""

from __future__ import annotations

import contextlib
import random
import sys
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn

_OF_EVERY_MODULE = frozenset(vars(nn.Module()))
_LARGEST_CONTAINER = 16

_REMEMBERING = (
    *(int, float, dict, list, deque, torch.Tensor),
    *(torch.Generator, np.random.Generator, np.random.RandomState, random.Random),
)
"""what is looked at in classes and files"""

Setter = Callable[[Any], None]
Attribute = tuple[str, Any, Setter]
"""name, value, and what sets another value"""


def describe_attributes(module: nn.Module) -> dict[str, Any]:
    """Return what is in the attributes now, in a form that can be compared."""
    return {name: _comparable(value) for name, value, _ in attributes(module)}


@contextlib.contextmanager
def preserve_shared_numbers(module: nn.Module) -> Iterator[None]:
    """Put the numbers of classes and files back, which all networks share."""
    shared = [(put, value) for name, value, put in numbers(module) if " of " in name]
    del module  # the next imaginary process needs its memory
    try:
        yield
    finally:
        for put, value in shared:
            put(value)


def numbers(module: nn.Module) -> Iterator[Attribute]:
    """Yield the attributes that are numbers, or tensors of a single one."""
    for name, value, put in list(attributes(module)):
        if isinstance(value, torch.Tensor):
            if value.ndim == 0 and value.dtype in (torch.int64, torch.int32, torch.float32):
                yield name, value.item(), partial(_put_in_tensor, put, value)
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            yield name, value, put


def attributes(module: nn.Module) -> Iterator[Attribute]:
    """Yield the attributes, and what is in small containers."""
    seen: set[int] = set()
    for path, part in module.named_modules():
        for key, value in list(vars(part).items()):
            if key not in _OF_EVERY_MODULE:
                name = f"{path}.{key}" if path else str(key)
                yield from _inside(name, value, partial(vars(part).__setitem__, key))
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


def _inside(name: str, value: Any, put: Setter) -> Iterator[Attribute]:
    yield name, value, put
    if isinstance(value, (dict, list)) and len(value) <= _LARGEST_CONTAINER:
        items = list(value.items() if isinstance(value, dict) else enumerate(value))
        for key, inner in items:
            if isinstance(inner, (int, float, torch.Tensor, nn.Module)):
                yield f"{name}[{key!r}]", inner, partial(value.__setitem__, key)
    elif _is_users(value):
        for key, inner in list(vars(value).items()):
            yield f"{name}.{key}", inner, partial(setattr, value, key)


def _is_users(value: Any) -> bool:
    """Return whether it is an object of a class of the network's own code, or of its packages."""
    kind = type(value)
    root = kind.__module__.partition(".")[0]
    known = root in sys.stdlib_module_names or root in ("torch", "numpy")
    return not known and not isinstance(value, nn.Module) and hasattr(value, "__dict__")


def _put_in_tensor(put: Setter, like: torch.Tensor, number: float) -> None:
    put(torch.full_like(like, number))


def _comparable(value: Any) -> Any:
    match value:
        case None | bool() | int() | float() | str():
            return value
        case torch.Tensor():
            return (tuple(value.shape), float(value.detach().abs().double().nan_to_num().sum()))
        case torch.Generator():
            return bytes(value.get_state().tolist())
        case np.random.Generator():
            return str(value.bit_generator.state)
        case np.random.RandomState():
            return str(value.get_state())
        case random.Random():
            return value.getstate()
        case nn.Module():
            return [_comparable(parameter) for parameter in value.parameters()]
        case list() | tuple() | dict() | set() | deque():
            return (type(value).__name__, len(value))
    return type(value).__name__
