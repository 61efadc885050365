"""An optimiser's state in the form that checkpoints have."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import nn

from trainer.base.tensor_files import Tensors

SMALL_BYTES = 2**24
"""of parameters, of which copies do not matter: for a step without values torch imports its
compiler, which takes more than a second"""
GROUP = "group"
"""begins the names of what an optimiser keeps in its groups; a number follows"""

_OF_A_RUN = ("params", "lr", "lr_factor", "weight_decay", "muon")
"""of a group: known from the configuration and the step"""


def optimizer_state(optimizer: torch.optim.Optimizer) -> tuple[Tensors, dict[str, Any]]:
    """Return an optimiser's state as tensors, and what is not a tensor as JSON values."""
    tensors: Tensors = {}
    numbers: dict[str, Any] = {}
    for index, values in optimizer.state_dict()["state"].items():
        for name, value in values.items():
            kind: dict[str, Any] = tensors if isinstance(value, torch.Tensor) else numbers
            kind[f"{index}.{name}"] = value
    for index, group in enumerate(optimizer.param_groups):
        for name in _remembered(optimizer, group):
            kind = tensors if isinstance(group[name], torch.Tensor) else numbers
            kind[f"{GROUP}{index}.{name}"] = group[name]
    return tensors, numbers


def _remembered(optimizer: torch.optim.Optimizer, group: Mapping[str, Any]) -> list[str]:
    """Return the names of what steps have made of a group's numbers: counts, sums of rates.

    Some are tensors of a single number.
    """
    defaults = optimizer.defaults
    return [
        name
        for name, value in group.items()
        if name not in _OF_A_RUN and isinstance(value, (int, float, torch.Tensor))
        if name not in defaults or bool(defaults[name] != value)
    ]


def load_optimizer_state(
    optimizer: torch.optim.Optimizer, tensors: Tensors, numbers: dict[str, Any]
) -> None:
    """Load a state of `optimizer_state`; tensors take the memory layout of their parameters."""
    groups = optimizer.state_dict()["param_groups"]
    for group in groups:  # as before the first step, which may be long ago
        for name in _remembered(optimizer, group):
            if name in optimizer.defaults:
                group[name] = optimizer.defaults[name]
            else:
                del group[name]
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    state: dict[int, dict[str, Any]] = {}
    for key, value in {**tensors, **numbers}.items():
        index, name = key.split(".", 1)
        if index.startswith(GROUP):
            groups[int(index.removeprefix(GROUP))][name] = value
            continue
        parameter = parameters[int(index)]
        if isinstance(value, torch.Tensor) and value.shape == parameter.shape:
            value = torch.empty_like(parameter, dtype=value.dtype).copy_(value)
        state.setdefault(int(index), {})[name] = value
    optimizer.load_state_dict({"state": state, "param_groups": groups})


def copy_optimizer(
    optimizer: torch.optim.Optimizer, known: dict[int, Any] | None = None
) -> torch.optim.Optimizer:
    """Copy an optimiser over copies of its parameters.

    Unlike torch's own way of copying, this takes the attributes of a subclass along.

    Args:
        known: copies of parts that are made already, by the parts' ids.
    """
    kind = type(optimizer)
    copied = kind.__new__(kind)
    # In fp16 Accelerate puts a bound method there, which would belong to another copy.
    attributes = {name: value for name, value in vars(optimizer).items() if name != "step"}
    vars(copied).update(copy.deepcopy(attributes, known))
    return copied


def set_mode(optimizer: torch.optim.Optimizer, *, training: bool) -> None:
    """Let an optimiser that has other weights for evaluations, a schedule-free one, change them."""
    change = getattr(optimizer, "train" if training else "eval", None)
    if change is not None:
        change()


def states_after_a_step(
    optimizer: torch.optim.Optimizer,
) -> Iterator[tuple[Tensors, set[str]]]:
    """Yield the tensors and the names of the numbers that a step of a copy makes.

    Of many parameters, first of a copy that has neither values nor memory. An optimiser of a
    library or of the user's may be unable to take such a step, or take another one: so at last of a
    real copy.
    """
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    if sum(parameter.nbytes for parameter in parameters) > SMALL_BYTES:
        try:
            found = _state_after_a_step(_copy_without_values(optimizer))
        except Exception:
            pass  # it does something with values; an error of another kind comes again below
        else:
            yield found
    yield _state_after_a_step(copy_optimizer(optimizer))


def _state_after_a_step(copied: torch.optim.Optimizer) -> tuple[Tensors, set[str]]:
    set_mode(copied, training=True)
    for group in copied.param_groups:
        for parameter in group["params"]:
            parameter.grad = torch.zeros_like(parameter)
    copied.step()
    tensors, numbers = optimizer_state(copied)
    return tensors, set(numbers)


def _copy_without_values(optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
    known: dict[int, Any] = {}
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            known[id(parameter)] = nn.Parameter(torch.empty_like(parameter, device="meta"))
    for state in optimizer.state.values():
        for value in state.values():
            if isinstance(value, torch.Tensor) and value.ndim:
                known[id(value)] = torch.empty_like(value, device="meta")
    copied = copy_optimizer(optimizer, known)
    for values in (copied.defaults, *copied.param_groups):
        for name in ("fused", "capturable"):  # which make the same state, but not of such tensors
            if values.get(name):
                values[name] = False
    return copied
