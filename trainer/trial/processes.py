"""An imaginary process of the trial: it trains micro-batches and judges blocks of images."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

from trainer import evaluation, model_state, seeding
from trainer.buffers import StepBuffers, copies_of, left_alone
from trainer.model_state import check_parameters, same_bits
from trainer.tensor_files import Tensors

Piece = tuple[torch.Tensor, torch.Tensor]
"""scaled images, (n, channels, height, width), and their classes"""

UPDATE = 1e-3
"""by which every parameter moves between the steps"""

GRADIENT = "the gradient of "


@dataclass(frozen=True)
class Task:
    """What the trial computes.

    Args:
        build: the network as the run has it at its start, on the device.
        pieces: one micro-batch, or two where a step of the run has several.
        seed: the run's.
        label_smoothing: as in the run.
        autocast: around forward passes.
        evaluated: most images at once in an evaluation; None: as many as in a micro-batch.
    """

    build: Callable[[], nn.Module]
    pieces: Sequence[Piece]
    seed: int
    label_smoothing: float
    autocast: Callable[[], contextlib.AbstractContextManager[None]]
    evaluated: int | None = None


@dataclass
class Pass:
    """What one pass of a micro-batch, or of a block of an evaluation, has given."""

    tensors: Tensors
    modules: list[tuple[str, Tensors, Tensors]] = field(default_factory=list)
    """where it is watched: of each module that was called its name, inputs and outputs"""


class Process:
    """One imaginary process with its network."""

    def __init__(self, task: Task, *, watched: bool) -> None:
        self.task = task
        self.module = task.build()
        self.parameters = dict(self.module.named_parameters())
        self.trained = {name for name, p in self.parameters.items() if p.requires_grad}
        self.called: list[tuple[str, Tensors, Tensors]] = []
        if watched:
            for name, part in self.module.named_modules():
                part.register_forward_hook(self._note(name), with_kwargs=True)

    def _note(self, name: str) -> Callable[..., None]:
        def hook(_: nn.Module, inputs: object, more: object, output: object) -> None:
            self.called.append((name, _tensors_in((inputs, more)), _tensors_in(output)))

        return hook

    def train(self, buffers: StepBuffers, step: int, index: int) -> Pass:
        """Do a micro-batch; its gradients go with what is returned."""
        images, targets = self.task.pieces[index]
        seeding.seed_all(self.task.seed, "forward", step, index)
        self.called.clear()
        before = {
            name: p.detach().clone()
            for name, p in self.parameters.items()
            if name not in model_state.traits_of(self.module).set_in_training
        }
        with self.task.autocast():
            logits = self.module(images.clone())
        smoothing = self.task.label_smoothing
        loss = F.cross_entropy(logits.float(), targets, label_smoothing=smoothing)
        loss.backward()  # type: ignore[no-untyped-call]
        check_parameters(self.module, self.parameters, self.trained)
        found = {"the loss": loss.detach()}
        for name, parameter in self.parameters.items():
            if parameter.grad is not None:
                found[GRADIENT + name] = parameter.grad.detach()
                parameter.grad = None
            if name in before and not same_bits(before[name], parameter):
                found[f"the parameter {name}"] = parameter.detach().clone()
        if len(self.task.pieces) > 1:
            buffers.changes(1.0, first=True)  # raises where one has another shape than before
        found |= {f"the buffer {k}": v.detach().clone() for k, v in buffers.current().items()}
        return Pass(found, list(self.called))

    def evaluate(self, order: Sequence[int]) -> dict[int, Pass]:
        """Judge the pieces as blocks of images, in this order."""
        found = {}
        with left_alone(self.module), torch.no_grad():
            self.module.eval()
            before = copies_of(self.module)
            for index in order:
                before.put_back()
                seeding.seed_all(self.task.seed, "evaluation", index)
                self.called.clear()
                images = self.task.pieces[index][0][: self.task.evaluated].clone()
                with evaluation.fitting(len(images), images.device), self.task.autocast():
                    logits = self.module(images)
                found[index] = Pass({"the output": logits.detach().clone()}, list(self.called))
        return found

    @torch.no_grad()
    def update(self, gradients: Tensors) -> None:
        """Move the parameters, by an amount that cannot overflow."""
        for name, gradient in gradients.items():
            self.parameters[name].add_(gradient.nan_to_num().sgn(), alpha=-UPDATE)


def _tensors_in(value: object) -> Tensors:
    """Copies of the tensors in what a module takes or gives."""
    return {str(number): tensor.detach().clone() for number, tensor in enumerate(_flat(value))}


def _flat(value: object) -> Iterator[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, dict):
        for inner in value.values():
            yield from _flat(inner)
    elif isinstance(value, (list, tuple)):
        for inner in value:
            yield from _flat(inner)
