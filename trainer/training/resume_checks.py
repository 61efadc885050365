"""Check that a checkpoint fits the run that is to go on from it, before anything is loaded.

Names, types and shapes of all tensors are compared with those of the model and the optimiser, so
that a checkpoint of another network is a message, and one of an absurd size costs no memory.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from trainer.base.errors import UserError
from trainer.base.strict_json import describe_value
from trainer.base.tensor_files import Specs, describe_mismatch, tensor_specs
from trainer.checkpoint.reading import STATE, Checkpoint
from trainer.network import model_state
from trainer.training.optimizer_state import GROUP, states_after_a_step


def check(
    saved: Checkpoint,
    specs: Mapping[str, Specs],
    module: nn.Module,
    optimizer: torch.optim.Optimizer,
    averaged: bool,
) -> None:
    """Compare a checkpoint with the run that it is to be loaded into.

    Args:
        specs: of the tensors in each of its files.
        averaged: whether an average of the weights is kept.

    Raises:
        UserError: names the checkpoint's file and what in it does not fit.
    """
    has_best = saved.state["run"]["best_accuracy"] is not None
    for name, there in (("model", True), ("best", has_best), ("average", averaged)):
        weights = model_state.expected_specs(module, specs[name]) if there else {}
        if there or name != "average":
            _require(saved, name, specs[name], weights)
    _check_optimizer(saved, specs["optimizer"], optimizer)


def _require(saved: Checkpoint, name: str, found: Specs, expected: Specs) -> None:
    difference = describe_mismatch(found, expected)
    if difference:
        raise _unfit(saved, saved.path(name).name, difference)


def _check_optimizer(saved: Checkpoint, found: Specs, optimizer: torch.optim.Optimizer) -> None:
    """Check that a parameter has all of its state or, where it never had a gradient, none."""
    errors = []
    for state, numbers in states_after_a_step(optimizer):
        try:
            _compare_optimizer(saved, found, tensor_specs(state), numbers)
        except UserError as error:
            errors.append(error)
        else:
            return
    raise errors[-1]


def _compare_optimizer(saved: Checkpoint, found: Specs, tensors: Specs, numbers: set[str]) -> None:
    kept = saved.state["optimizer"].keys()
    # A group's numbers may be those from before the first step again, which are not kept.
    found_numbers = {key for key in kept if not (key.startswith(GROUP) and key in numbers)}
    present = {_index(key) for key in [*found, *found_numbers]}
    expected = {key: spec for key, spec in tensors.items() if _index(key) in present}
    _require(saved, "optimizer", found, expected)
    expected_numbers = {key for key in numbers if _index(key) in present}
    for key in sorted(expected_numbers ^ found_numbers):
        raise _unfit(
            saved, STATE, f"optimizer: {describe_value(key)} is missing, or nothing here takes it"
        )


def _index(key: str) -> str:
    return key.partition(".")[0]


def _unfit(saved: Checkpoint, file: str, difference: str) -> UserError:
    return UserError(f"{saved.folder / file}: does not fit this run: {difference}")
