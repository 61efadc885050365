"""An imaginary process of the trial: it trains micro-batches and judges blocks of images."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import nn
from torch.utils._pytree import tree_leaves

from trainer.base import seeding
from trainer.base.tensor_files import Tensors, bytes_of
from trainer.network import model_state
from trainer.network.buffers_in_passes import StepBuffers, preserve_state, save_values
from trainer.network.freezing import Freezing
from trainer.network.pass_effects import TrainedParameters

Piece = tuple[torch.Tensor, torch.Tensor]
"""scaled images, (n, channels, height, width), and their classes"""

Bits = dict[str, str]
"""digests by what a tensor is: copies of all gradients would take more memory than a training"""

UPDATE = 1e-3
"""by which every parameter moves between the steps"""


@dataclass(frozen=True)
class Task:
    """What the trial computes.

    Args:
        build: the network as the run has it at its start, on the device.
        freeze: gives what freezes the parameters of such a network that are never trained.
        pieces: one micro-batch, or two where a step of the run has several.
        loss: the mean loss of logits and targets.
        autocast: around forward passes.
        evaluated: most images at once in an evaluation; None: as many as in a micro-batch.
    """

    build: Callable[[], nn.Module]
    freeze: Callable[[nn.Module], Freezing]
    pieces: Sequence[Piece]
    seed: int
    loss: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
    autocast: Callable[[], contextlib.AbstractContextManager[None]]
    evaluated: int | None = None


@dataclass
class Pass:
    """The results of one pass, of a micro-batch or of a block of an evaluation."""

    bits: Bits
    modules: list[tuple[str, Bits, Bits]] = field(default_factory=list)
    """where modules are watched: name, inputs and outputs of each that was called"""
    gradients: Tensors = field(default_factory=dict)
    """by the names of the parameters"""


class Process:
    """One imaginary process with its network."""

    def __init__(self, task: Task, *, watched: bool) -> None:
        self.task = task
        self.module = task.build()
        self.freezing = task.freeze(self.module)
        self.trained = TrainedParameters(self.module)
        self.buffers = StepBuffers(self.module, self.freezing.frozen_norms())
        self.called: list[tuple[str, Bits, Bits]] = []
        self.values = self._values()
        if watched:
            for name, part in self.module.named_modules():
                part.register_forward_hook(partial(self._note, name), with_kwargs=True)

    def _note(self, name: str, _: nn.Module, inputs: object, more: object, output: object) -> None:
        self.called.append((name, _bits_in((inputs, more)), _bits_in(output)))

    def load(self, state: Tensors) -> None:
        """Load a state, as from a checkpoint."""
        model_state.load(self.module, model_state.tensors_to_write(self.module, state))
        self.values = self._values()

    def train(self, step: int, index: int) -> Pass:
        """Do a micro-batch."""
        images, targets = self.task.pieces[index]
        seeding.seed_all(self.task.seed, "forward", step, index)
        self.called.clear()
        with self.task.autocast():
            logits = self.module(images.clone())
        loss = self.task.loss(logits.float(), targets)
        loss.backward()  # type: ignore[no-untyped-call]
        self.trained.check()
        found, gradients = {"the loss": bits_of(loss)}, {}
        for name, parameter in self.trained.all.items():
            if parameter.grad is not None:
                gradients[name] = parameter.grad.detach()
                found[f"the gradient of {name}"] = bits_of(parameter.grad)
                parameter.grad = None
        for name, bits in self._values().items():
            if bits != self.values[name]:
                found[f"the parameter {name}"] = bits
        if len(self.task.pieces) > 1:
            self.buffers.changes(1.0, first=True)  # raises where one has another shape than before
        found |= {f"the buffer {name}": bits_of(v) for name, v in self.buffers.current().items()}
        return Pass(found, list(self.called), gradients)

    def _values(self) -> Bits:
        """Return the digests of the parameters that a pass should not change."""
        moving = model_state.effects_of(self.module).set_in_training
        return {name: bits_of(p) for name, p in self.trained.all.items() if name not in moving}

    def evaluate(self, order: Sequence[int]) -> dict[int, Pass]:
        """Evaluate the pieces as blocks of images, in this order."""
        found = {}
        with preserve_state(self.module), torch.no_grad():
            self.module.eval()
            before = save_values(self.module)
            for index in order:
                before.restore()
                seeding.seed_all(self.task.seed, "evaluation", index)
                self.called.clear()
                images = self.task.pieces[index][0][: self.task.evaluated].clone()
                with self.task.autocast():
                    logits = self.module(images)
                found[index] = Pass({"the output": bits_of(logits)}, list(self.called))
        return found

    @torch.no_grad()
    def update(self, gradients: Tensors) -> None:
        """Move the parameters, by an amount that cannot overflow."""
        for name, gradient in gradients.items():
            self.trained.all[name].add_(gradient.nan_to_num().sgn(), alpha=-UPDATE)
        self.buffers.restore_strides()
        self.values = self._values()


def bits_of(tensor: torch.Tensor) -> str:
    """Return a digest of type, shape and bits, however the tensor lies in memory."""
    dense = tensor.detach().to_dense()
    if dense.ndim == 4:  # mostly channels_last, whose bytes are then not copied
        dense = dense.permute(0, 2, 3, 1)
    digest = hashlib.sha256(bytes_of(dense))
    return f"{tensor.dtype} {tuple(tensor.shape)} {digest.hexdigest()}"


def _bits_in(value: object) -> Bits:
    """Return the digests of the tensors in what a module takes or returns."""
    tensors = [leaf for leaf in tree_leaves(value) if isinstance(leaf, torch.Tensor)]
    return {str(number): bits_of(tensor) for number, tensor in enumerate(tensors)}
