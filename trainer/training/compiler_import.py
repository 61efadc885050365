"""Derive optimisers that do not import torch's compiler."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, TypeVar

import torch

Kind = TypeVar("Kind", bound=torch.optim.Optimizer)


def skip_compiler_import(kind: type[Kind]) -> type[Kind]:
    """Derive an optimiser that does not import torch's compiler, which takes about a second.

    Torch wraps these methods to keep them out of compiled code. Nothing compiles an optimiser here.
    """
    names = ("add_param_group", "zero_grad", "state_dict", "load_state_dict")
    methods = {name: inspect.unwrap(getattr(kind, name)) for name in names}
    return type(kind.__name__, (kind,), methods | {"step": plain_step(kind)})


def plain_step(kind: type[torch.optim.Optimizer]) -> Callable[..., Any]:
    """Return an optimiser's step as it is written, without what torch wraps around it."""
    step: Callable[..., Any] = torch.no_grad()(inspect.unwrap(kind.step))
    return step
