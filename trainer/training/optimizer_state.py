"""An optimiser's state in the form that checkpoints have."""

from __future__ import annotations

import copy
from typing import Any

import torch

from trainer.base.tensor_files import Tensors


def optimizer_state(optimizer: torch.optim.Optimizer) -> tuple[Tensors, dict[str, Any]]:
    """Return an optimiser's state as tensors, and what is not a tensor as JSON values."""
    tensors: Tensors = {}
    numbers: dict[str, Any] = {}
    for index, values in optimizer.state_dict()["state"].items():
        for name, value in values.items():
            kind: dict[str, Any] = tensors if isinstance(value, torch.Tensor) else numbers
            kind[f"{index}.{name}"] = value
    return tensors, numbers


def load_optimizer_state(
    optimizer: torch.optim.Optimizer, tensors: Tensors, numbers: dict[str, Any]
) -> None:
    """Load a state of `optimizer_state`; tensors take the memory layout of their parameters."""
    groups = optimizer.state_dict()["param_groups"]
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    state: dict[int, dict[str, Any]] = {}
    for key, value in {**tensors, **numbers}.items():
        index, name = key.split(".", 1)
        parameter = parameters[int(index)]
        if isinstance(value, torch.Tensor) and value.shape == parameter.shape:
            value = torch.empty_like(parameter, dtype=value.dtype).copy_(value)
        state.setdefault(int(index), {})[name] = value
    optimizer.load_state_dict({"state": state, "param_groups": groups})


def copy_optimizer(optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
    """Copy an optimiser over copies of its parameters.

    Unlike torch's own way of copying, this takes the attributes of a subclass along.
    """
    kind = type(optimizer)
    copied = kind.__new__(kind)
    vars(copied).update(copy.deepcopy(vars(optimizer)))
    return copied


def state_after_a_step(optimizer: torch.optim.Optimizer) -> tuple[Tensors, set[str]]:
    """Return the tensors and the names of the numbers that a step of a copy makes."""
    copied = copy_optimizer(optimizer)
    for group in copied.param_groups:
        for parameter in group["params"]:
            parameter.grad = torch.zeros_like(parameter)
    copied.step()
    tensors, numbers = optimizer_state(copied)
    return tensors, set(numbers)
