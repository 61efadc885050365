"""Optimisers of users and libraries, and whether they keep what a run promises."""

from __future__ import annotations

import contextlib
import copy
import json
from typing import Any

import torch

from trainer.base.errors import UserError
from trainer.base.operators import PortabilityCheck
from trainer.config import plugins
from trainer.config.plugins import Plugin
from trainer.config.schema import OptimizerConfig
from trainer.training import library_optimizers
from trainer.training.optimizer_state import (
    copy_optimizer,
    load_optimizer_state,
    optimizer_state,
    set_mode,
)


def build(
    config: OptimizerConfig, groups: list[dict[str, Any]], *, portable: bool
) -> torch.optim.Optimizer:
    """Build the optimiser that `optimizer.name` stands for, and try it on copies of the parameters.

    Args:
        groups: of parameters, each with its `weight_decay`.
        portable: whether every processor has to give the same bits.

    Raises:
        UserError: it cannot be built or does no step, would not do the same step on every process,
            or would not go on after a resume as if nothing had happened.
    """
    of_library = plugins.is_of_library(config.name)
    device = next(parameter.device for group in groups for parameter in group["params"])
    plugin = (
        library_optimizers.find(config.name, device)
        if of_library
        else plugins.find("optimizer", config.name)
    )
    check = PortabilityCheck()
    with plugin.explain_errors(), check if portable else contextlib.nullcontext():
        optimizer = plugin.member(groups, lr=config.lr, **config.args)
        if not isinstance(optimizer, torch.optim.Optimizer):
            raise TypeError(f"{type(optimizer).__name__} is not a torch.optim.Optimizer")
        _check(plugin, optimizer)
    if doubt := check.describe():
        raise UserError(f"optimizer.name: {config.name} {doubt}; choose another, such as muon")
    if of_library and config.weight_decay and "weight_decay" not in optimizer.defaults:
        raise UserError(f"optimizer.weight_decay: {config.name} has none; it must be 0")
    return optimizer


def _check(plugin: Plugin, optimizer: torch.optim.Optimizer) -> None:
    first, again, resumed = (copy_optimizer(optimizer) for _ in range(3))
    for tried in (first, again):
        _step(tried, 1.0)
    if not _equal(first, again):
        raise plugin.error(
            "makes other weights of the same gradients at a second try, so each process would "
            "have its own model; it must draw no random numbers"
        )
    tensors, numbers = optimizer_state(first)
    try:
        numbers = json.loads(json.dumps(numbers))
    except TypeError as error:
        raise plugin.error(
            f"keeps a state that is neither tensors nor numbers, so that no checkpoint can hold "
            f"it ({error})"
        ) from error
    with torch.no_grad():
        for mine, theirs in zip(_parameters(first), _parameters(resumed), strict=True):
            theirs.copy_(mine)
    load_optimizer_state(resumed, copy.deepcopy(tensors), numbers)
    for tried in (first, resumed):
        _step(tried, -0.5)
    if not _equal(first, resumed):
        raise plugin.error(
            "makes another second step after a resume; what it has to remember must be in "
            "self.state[parameter] or, a number, in its group, and not in attributes"
        )


def _parameters(optimizer: torch.optim.Optimizer) -> list[torch.Tensor]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def _step(optimizer: torch.optim.Optimizer, scale: float) -> None:
    set_mode(optimizer, training=True)
    for parameter in _parameters(optimizer):
        slope = torch.linspace(-scale, scale, parameter.numel(), device=parameter.device)
        parameter.grad = torch.zeros_like(parameter) + slope.view(parameter.shape)
    optimizer.step()


def _equal(one: torch.optim.Optimizer, other: torch.optim.Optimizer) -> bool:
    pairs = zip(_parameters(one), _parameters(other), strict=True)
    return all(torch.equal(mine, theirs) for mine, theirs in pairs)
