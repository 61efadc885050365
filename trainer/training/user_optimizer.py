"""Optimisers of users' own, and whether they keep what a run promises."""

from __future__ import annotations

import copy
import json
from typing import Any

import torch

from trainer.config import plugins
from trainer.config.plugins import Extension
from trainer.config.schema import OptimizerConfig
from trainer.training.optimizer_state import load_optimizer_state, optimizer_state, twin_of


def build(config: OptimizerConfig, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
    """The optimiser that `optimizer.name` stands for, tried on copies of the parameters.

    Args:
        groups: of parameters, each with its `weight_decay`.

    Raises:
        UserError: it cannot be built or does no step, it would not do the same step on every
            process, or not go on after a resume as if nothing had been.
    """
    extension = plugins.find("optimizer", config.name)
    with plugins.running(extension):
        optimizer = extension.member(groups, lr=config.lr, **config.args)
        if not isinstance(optimizer, torch.optim.Optimizer):
            raise TypeError(f"{type(optimizer).__name__} is no torch.optim.Optimizer")
        _check(extension, optimizer)
    return optimizer


def _check(extension: Extension, optimizer: torch.optim.Optimizer) -> None:
    first, again = twin_of(optimizer), twin_of(optimizer)
    for twin in (first, again):
        _step(twin, 1.0)
    if not _equal(first, again):
        raise plugins.wrong(
            extension,
            "makes other weights of the same gradients at a second try, so each process would "
            "have a model of its own; it must draw no random numbers",
        )
    tensors, numbers = optimizer_state(first)
    try:
        numbers = json.loads(json.dumps(numbers))
    except TypeError as error:
        raise plugins.wrong(
            extension, f"keeps a state that is neither tensors nor numbers, so that no checkpoint "
            f"can hold it ({error})"
        ) from error  # fmt: skip
    resumed = twin_of(optimizer)
    _copy_weights(first, resumed)
    load_optimizer_state(resumed, copy.deepcopy(tensors), numbers)
    for twin in (first, resumed):
        _step(twin, -0.5)
    if not _equal(first, resumed):
        raise plugins.wrong(
            extension,
            "makes another second step after a resume; what it has to remember must be in "
            "self.state[parameter], neither in attributes nor in the groups",
        )


def _parameters(optimizer: torch.optim.Optimizer) -> list[torch.Tensor]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def _step(optimizer: torch.optim.Optimizer, scale: float) -> None:
    for parameter in _parameters(optimizer):
        slope = torch.linspace(-scale, scale, parameter.numel(), device=parameter.device)
        parameter.grad = torch.zeros_like(parameter) + slope.view(parameter.shape)
    optimizer.step()


def _equal(one: torch.optim.Optimizer, other: torch.optim.Optimizer) -> bool:
    pairs = zip(_parameters(one), _parameters(other), strict=True)
    return all(torch.equal(mine, theirs) for mine, theirs in pairs)


def _copy_weights(source: torch.optim.Optimizer, target: torch.optim.Optimizer) -> None:
    with torch.no_grad():
        for mine, theirs in zip(_parameters(source), _parameters(target), strict=True):
            theirs.copy_(mine)
