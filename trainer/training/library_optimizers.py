"""Optimisers of torch and of timm, by `torch:NAME` and `timm:NAME`."""

from __future__ import annotations

import functools
from collections.abc import Callable
from difflib import get_close_matches
from typing import Any

import torch

from trainer.base.errors import UserError
from trainer.config.plugins import TIMM, TORCH, Plugin
from trainer.training.compiler_import import skip_compiler_import
from trainer.training.optimizers_on_gpus import without_waiting


def find(name: str, device: torch.device) -> Plugin:
    """Return the optimiser that a name stands for.

    Args:
        device: of the parameters.

    Raises:
        UserError: the library has none of that name, or cannot be imported.
    """
    word = name.partition(":")[2]
    found = _of_timm(word) if name.startswith(TIMM) else _of_torch(word, device)
    return Plugin("optimizer", name, found)


def _of_torch(name: str, device: torch.device) -> Callable[..., Any]:
    kinds = {
        word: kind
        for word, kind in vars(torch.optim).items()
        if isinstance(kind, type) and issubclass(kind, torch.optim.Optimizer)
        if kind is not torch.optim.Optimizer
    }
    if name not in kinds:
        raise _unknown(TORCH, name, list(kinds))
    kind, arguments = without_waiting(kinds[name], device)
    return functools.partial(skip_compiler_import(kind), **arguments)


def _of_timm(name: str) -> Callable[..., Any]:
    try:
        from timm.optim import get_optimizer_class, list_optimizers
    except Exception as error:  # a torchvision of another build of torch raises a RuntimeError
        raise UserError(
            f"optimizer.name: {TIMM}{name} needs timm, whose import fails "
            f"({type(error).__name__}: {error}); pip install 'lockstep-trainer[timm]', with a "
            f"torchvision of the same build as torch"
        ) from error
    known = list_optimizers()
    if name not in known:
        raise _unknown(TIMM, name, known)
    try:
        found: Callable[..., Any] = get_optimizer_class(name)
    except (AssertionError, ImportError) as error:  # of apex and bitsandbytes
        raise UserError(f"optimizer.name: {TIMM}{name}: {error}") from error
    return found


def _unknown(library: str, name: str, known: list[str]) -> UserError:
    by_lower = {word.lower(): f"{library}{word}" for word in known}
    close = [by_lower[word] for word in get_close_matches(name.lower(), by_lower)]
    nearest = f"did you mean {' or '.join(close)}?" if close else f"it has {', '.join(known)}"
    return UserError(
        f"optimizer.name: {library.removesuffix(':')} has no optimiser {name!r}; {nearest}"
    )
