"""Time optimiser steps of several trainers in turn, in every process of a group.

Usage: step_times.py CASE OUTPUT, CASE a JSON object; rank 0 writes OUTPUT, the seconds of each
trainer's block of steps in each round. Started by lockstep.py and scaling.py under a launcher.
"""

from __future__ import annotations

import functools
import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import paired
import torch
import torch.nn.functional as F  # noqa: N812
from accelerate import Accelerator
from torch import nn
from torch.nn.parallel import DistributedDataParallel

import models
from trainer.base import numerics, seeding
from trainer.base.flat_buffer import BufferLayout
from trainer.config.schema import OptimizerConfig, RunConfig, TrainConfig
from trainer.data import sampling
from trainer.data.sampling import microbatch_sizes
from trainer.ranks import process_group
from trainer.training import exchange, optimizers
from trainer.training.step import StepResult, TrainStep

Step = Callable[[int, torch.Tensor, torch.Tensor, Sequence[int]], object]

LABEL_SMOOTHING = 0.1


class Case:
    """A model, an optimiser and a batch, for any number of trainers that start alike."""

    def __init__(self, accelerator: Accelerator, case: dict[str, Any]) -> None:
        self.accelerator = accelerator
        self.model, self.model_args = case["model"], case["model_args"]
        # So small that no weights grow: the time of a step must not depend on their values.
        self.optimizer = OptimizerConfig(name=case["optimizer"], lr=1e-5)
        self.batch_size, self.microbatches = case["batch_size"], case["microbatches"]
        own = self.batch_size // accelerator.num_processes
        generator = torch.Generator().manual_seed(accelerator.process_index)
        self.images = torch.randn(own, 1, 28, 28, generator=generator)
        self.targets = torch.randint(10, (own,), generator=generator)

    def build(self) -> tuple[nn.Module, torch.optim.Optimizer]:
        """Build a model with its optimiser, always the same."""
        seeding.seed_torch(0, "initialisation")
        model = models.create(
            self.model, self.model_args, num_classes=10, in_channels=1, image_size=(28, 28)
        )
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return model, optimizers.build(self.optimizer, model, num_classes=10)

    def lockstep(
        self, reduction: Literal["exact", "fast"], kind: type[TrainStep] = TrainStep
    ) -> TrainStep:
        """Return Lockstep's own step."""
        model, optimizer = self.build()
        config = TrainConfig(
            batch_size=self.batch_size,
            microbatches=self.microbatches,
            label_smoothing=LABEL_SMOOTHING,
            reduction=reduction,
        )
        self.accelerator.prepare_model(model, evaluation_mode=True)
        return kind(
            self.accelerator, model, self.accelerator.prepare_optimizer(optimizer), config, seed=0
        )


class WithoutTree(TrainStep):
    """The same engine with the tree removed: one backward pass straight into the optimiser."""

    def __call__(
        self,
        step: int,
        images: torch.Tensor,
        targets: torch.Tensor,
        sizes: Sequence[int],
        weights: torch.Tensor | None = None,
    ) -> StepResult:
        self.optimizer.zero_grad()
        seeding.seed_torch(self.seed, "forward", step, 0)
        measured = self._backward(images, targets, weights, sum(sizes), overlapped=False)
        self.optimizer.step()
        return StepResult(loss=measured[0], accuracy=measured[1])


def bare_loop(case: Case, pieces: int) -> Step:
    """Return what people write by hand: DDP, and one backward pass for each piece."""
    model, optimizer = case.build()
    wrapped = DistributedDataParallel(model, broadcast_buffers=False)

    def step(number: int, images: torch.Tensor, targets: torch.Tensor, sizes: object) -> None:
        optimizer.zero_grad()
        chunks = list(zip(images.chunk(pieces), targets.chunk(pieces), strict=True))
        with wrapped.no_sync():
            for chunk in chunks[:-1]:
                backward(*chunk)
        backward(*chunks[-1])
        optimizer.step()

    def backward(images: torch.Tensor, targets: torch.Tensor) -> None:
        loss = F.cross_entropy(wrapped(images), targets, label_smoothing=LABEL_SMOOTHING)
        (loss / pieces).backward()  # type: ignore[no-untyped-call]

    return step


def reduction_only(case: Case) -> Step:
    """Return the exchange of gradients between the ranks, and nothing else."""
    vector = torch.zeros(sum(parameter.numel() for parameter in case.build()[0].parameters()))
    layout = BufferLayout([vector])
    buffer = layout.pack([vector])
    rank, count = case.accelerator.process_index, case.accelerator.num_processes
    block = sampling.rank_microbatches(rank, count, case.microbatches)

    def step(number: int, images: torch.Tensor, targets: torch.Tensor, sizes: object) -> None:
        exchange.sum_over_ranks(layout, [((block.start, block.stop), buffer)], case.microbatches)

    return step


def optimiser_only(case: Case) -> Step:
    """Return updates by the same gradients again and again."""
    model, optimizer = case.build()
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, 1e-3)

    def step(number: int, images: torch.Tensor, targets: torch.Tensor, sizes: object) -> None:
        optimizer.step()

    return step


TRAINERS: dict[str, Callable[[Case], Step]] = {
    "exact": lambda case: case.lockstep("exact"),
    "fast": lambda case: case.lockstep("fast"),
    "without the tree": lambda case: case.lockstep("exact", WithoutTree),
    "bare DDP": lambda case: bare_loop(case, case.microbatches // case.accelerator.num_processes),
    "bare DDP, one piece": lambda case: bare_loop(case, 1),
    "reduction only": reduction_only,
    "optimiser only": optimiser_only,
}


def measure(case: Case, names: list[str], rounds: int, steps: int) -> dict[str, list[float]]:
    """Return the seconds of each trainer's block of steps in each round, in turn."""
    trainers = {name: TRAINERS[name](case) for name in names}
    sizes = microbatch_sizes(case.batch_size, case.microbatches)

    def block_s(train: Step) -> float:
        case.accelerator.wait_for_everyone()
        start_s = time.perf_counter()
        for step in range(steps):
            train(step, case.images, case.targets, sizes)
        case.accelerator.wait_for_everyone()
        return time.perf_counter() - start_s

    blocks = {name: functools.partial(block_s, train) for name, train in trainers.items()}
    return paired.take_turns(blocks, rounds)


def main() -> None:
    """Measure on all ranks."""
    task = json.loads(sys.argv[1])
    accelerator = process_group.create_accelerator(RunConfig())
    torch.set_num_threads(task["threads"])
    numerics.choose_kernels(deterministic=True)
    case = Case(accelerator, task)
    seconds = measure(case, task["trainers"], task["rounds"], task["steps"])
    parameters = sum(parameter.numel() for parameter in case.build()[0].parameters())
    if accelerator.is_main_process:
        Path(sys.argv[2]).write_text(json.dumps({"seconds": seconds, "parameters": parameters}))
    process_group.leave(accelerator)


if __name__ == "__main__":
    main()
