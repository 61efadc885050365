"""Whether a checkpoint fits a run: what does not fit is named before anything is loaded."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from torch import nn

from tests.checkpoints import small_state
from trainer.base.errors import UserError
from trainer.base.tensor_files import Specs, TensorSpec, tensor_specs
from trainer.checkpoint.reading import Checkpoint, open_checkpoint
from trainer.checkpoint.writing import Checkpoints
from trainer.config.schema import CheckpointConfig, OptimizerConfig, OptimizerName
from trainer.training import optimizers, resume_checks
from trainer.training.optimizer_state import (
    copy_optimizer,
    optimizer_state,
    states_after_a_step,
)


class Counting(torch.optim.SGD):
    """Keeps a tensor and a number for each parameter."""

    def step(self, closure: Any = None) -> Any:
        super().step(closure)
        for parameter, values in self.state.items():
            values["count"] = parameter.ndim


@dataclass
class Pair:
    """A run, and a checkpoint of it."""

    module: nn.Module
    optimizer: torch.optim.Optimizer
    saved: Checkpoint
    specs: dict[str, Specs]
    averaged: bool = True

    def check(self) -> None:
        resume_checks.check(self.saved, self.specs, self.module, self.optimizer, self.averaged)

    def check_refused(self, file: str, why: str) -> None:
        with pytest.raises(UserError) as refused:
            self.check()
        message = f"{self.saved.folder / file}: does not fit this run: {why}"
        assert str(refused.value) == message


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    module = nn.Linear(2, 3)
    optimizer = Counting(module.parameters(), momentum=0.9)
    stepped = copy_optimizer(optimizer)
    for parameter in stepped.param_groups[0]["params"]:
        parameter.grad = torch.ones_like(parameter)
    stepped.step()
    tensors, numbers = optimizer_state(stepped)
    weights = module.state_dict()
    files = {"model": weights, "optimizer": tensors, "best": weights, "average": weights}
    state = small_state(10) | {"optimizer": numbers}
    state["run"] |= {"epoch": 3, "train_seconds": 1.5, "best_accuracy": 0.5}
    checkpoints = Checkpoints(tmp_path / "checkpoints", CheckpointConfig())
    checkpoints.save(10, files, state)
    checkpoints.close()
    saved = open_checkpoint(checkpoints.folder / "step-00000010")
    specs = {name: saved.specs(name) for name in files}
    return Pair(module, optimizer, saved, specs)


def test_its_own_checkpoint_fits_a_run(pair: Pair) -> None:
    pair.check()


@pytest.mark.parametrize("name", ["model", "best", "average"])
def test_weights_of_another_shape_are_named_by_their_file(pair: Pair, name: str) -> None:
    pair.specs[name]["weight"] = TensorSpec("F32", (2, 3))
    why = "'weight' is F32 of 2 x 3, where F32 of 3 x 2 is expected"
    pair.check_refused(f"{name}.safetensors", why)


def test_an_average_that_the_run_does_not_keep_is_ignored(pair: Pair) -> None:
    pair.averaged = False
    pair.specs["average"] = {}
    pair.check()


def test_the_best_weights_are_there_where_there_was_a_best_accuracy(pair: Pair) -> None:
    best, pair.specs["best"] = pair.specs["best"], {}
    pair.check_refused("best.safetensors", "lacks 'bias', 'weight'")
    pair.saved.state["run"]["best_accuracy"] = None
    pair.check()
    pair.specs["best"] = best
    pair.check_refused("best.safetensors", "has 'bias', 'weight', which nothing here takes")
    pair.specs["best"] = {}
    pair.check()


def test_a_parameter_has_all_of_its_optimiser_state_or_none(pair: Pair) -> None:
    tensors, numbers = pair.specs["optimizer"], pair.saved.state["optimizer"]
    del tensors["1.momentum_buffer"]
    pair.check_refused("optimizer.safetensors", "lacks '1.momentum_buffer'")
    count = numbers.pop("1.count")
    pair.check()
    tensors["1.momentum_buffer"] = TensorSpec("F32", (3,))
    missing = "optimizer: '{}' is missing, or nothing here takes it"
    pair.check_refused("state.json", missing.format("1.count"))
    numbers |= {"1.count": count, "1.speed": 0.5}
    pair.check_refused("state.json", missing.format("1.speed"))
    numbers["1.fast"] = 0.5
    pair.check_refused("state.json", missing.format("1.fast"))
    tensors.clear()
    numbers.clear()
    pair.check()


class ReadsValues(torch.optim.SGD):
    """Its step depends on a value."""

    def step(self, closure: Any = None) -> Any:
        if self.param_groups[0]["params"][0].sum().item() < 1e9:
            super().step(closure)


@pytest.mark.parametrize("name", [*get_args(OptimizerName), "torch:NAdam", "torch:Adagrad"])
def test_an_optimisers_state_is_known_without_memory_for_it(name: str) -> None:
    module = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Linear(2, 2**21 + 1), nn.Linear(2, 3))
    config = OptimizerConfig(name, momentum=0.9)
    without_values, real = states_after_a_step(optimizers.build(config, module, 3))
    assert {value.device.type for value in without_values[0].values() if value.ndim} == {"meta"}
    assert tensor_specs(without_values[0]) == tensor_specs(real[0])
    assert without_values[1] == real[1]


@pytest.mark.parametrize("size", [3, 2**21 + 1])
def test_an_optimiser_that_reads_values_is_tried_with_some(size: int) -> None:
    (real,) = states_after_a_step(ReadsValues(nn.Linear(2, size).parameters(), momentum=0.9))
    assert {(name, value.device.type, *value.shape) for name, value in real[0].items()} == {
        ("0.momentum_buffer", "cpu", size, 2),
        ("1.momentum_buffer", "cpu", size),
    }
