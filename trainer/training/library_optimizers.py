"""Optimisers of torch and of timm, by `torch:NAME` and `timm:NAME`."""

from __future__ import annotations

from collections.abc import Callable
from difflib import get_close_matches
from typing import Any

import torch

from trainer.base.errors import UserError
from trainer.config.plugins import TIMM, TORCH, Plugin
from trainer.training.compiler_import import skip_compiler_import


def find(name: str) -> Plugin:
    """Return the optimiser that a name stands for.

    Raises:
        UserError: the library has none of that name, or cannot be imported.
    """
    word = name.partition(":")[2]
    return Plugin("optimizer", name, _of_timm(word) if name.startswith(TIMM) else _of_torch(word))


def _of_torch(name: str) -> Callable[..., Any]:
    kinds = {
        word: kind
        for word, kind in vars(torch.optim).items()
        if isinstance(kind, type) and issubclass(kind, torch.optim.Optimizer)
        if kind is not torch.optim.Optimizer
    }
    if name not in kinds:
        raise _unknown(TORCH, name, list(kinds))
    return skip_compiler_import(kinds[name])


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
