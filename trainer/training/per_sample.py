"""What each sample has to do with a step: its loss and gradient in the step's own forward pass.

A sample's gradient is that of its own loss through the whole micro-batch, in training mode: batch
norm's statistics join the samples, so it is no figure of the sample alone. The mean of the samples'
gradients is the step's gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn
from torch.nn.modules.module import register_module_forward_hook

from trainer.data.batches import Batch
from trainer.training import reduction
from trainer.training.step import TrainStep


@dataclass(frozen=True)
class SampleFigures:
    """Of one sample, as the network was before the step's update."""

    microbatch: int
    """from 0"""
    loss: float
    """not yet divided by the number of samples"""
    gradient_norm: float
    """of that loss, over all parameters"""
    predicted: int
    """the class that the network preferred"""
    probability: float
    """that it gave to it"""


class StepSamples:
    """Watches the forward passes of one step; they are the same with it and without.

    Args:
        train_step: whose step it is.
        batch: this rank's part of the step.
        sample_done: called after each sample, as each needs a backward pass of its own.
    """

    def __init__(
        self, train_step: TrainStep, batch: Batch, sample_done: Callable[[], object]
    ) -> None:
        self.train_step = train_step
        self.sample_done = sample_done
        self.figures: list[SampleFigures] = []
        """of this rank's samples, in their order"""
        self._samples = sum(batch.microbatch_sizes)
        self._sums = reduction.Accumulator(train_step.microbatches)
        own_sizes = [batch.microbatch_sizes[index] for index in train_step.own]
        pieces = zip(train_step.own, torch.split(batch.targets, own_sizes), strict=True)
        self._coming = [(index, targets) for index, targets in pieces if len(targets)]
        self._empty = [
            index for index, size in zip(train_step.own, own_sizes, strict=True) if not size
        ]

    @contextmanager
    def watching(self) -> Iterator[None]:
        """The step is done inside."""
        module = self.train_step.module
        if isinstance(module, torch.jit.ScriptModule):  # which takes no hook of its own
            handle = register_module_forward_hook(
                lambda called, inputs, logits: (
                    self._look(called, inputs, logits) if called is module else None
                )
            )
        else:
            handle = module.register_forward_hook(self._look)
        try:
            yield
        finally:
            handle.remove()

    def gradient_norm(self) -> float:
        """Of the whole step's gradient, before any clipping; a collective.

        It is added up in the order of the step itself, so it too has the same bits on any number
        of processes.
        """
        for index in self._empty:
            self._sums.add(index, [self._zeros()])
        (total,) = reduction.reduce(self._sums.nodes, self.train_step.microbatches)
        return float(total.norm())

    def _look(self, module: nn.Module, inputs: object, logits: torch.Tensor) -> None:
        index, targets = self._coming.pop(0)
        logits = logits.float()
        smoothing = self.train_step.config.label_smoothing
        losses = F.cross_entropy(logits, targets, reduction="none", label_smoothing=smoothing)
        norms, total = [], self._zeros()
        with self._as_before(module):
            for loss in losses:
                gradient = torch.cat([piece.flatten().float() for piece in self._gradients(loss)])
                norms.append(float(gradient.norm()))
                total += gradient / self._samples
                self.sample_done()
        self._sums.add(index, [total])
        probabilities, predicted = logits.detach().softmax(1).max(1)
        columns = (losses.tolist(), norms, predicted.tolist(), probabilities.tolist())
        self.figures += [SampleFigures(index, *row) for row in zip(*columns, strict=True)]

    def _gradients(self, loss: torch.Tensor) -> list[torch.Tensor]:
        """Of each parameter; the graph stays."""
        parameters = self.train_step.parameters
        if self.train_step.model is not self.train_step.module:
            # DDP would exchange what backward() leaves in the parameters.
            found = torch.autograd.grad(loss, parameters, retain_graph=True, materialize_grads=True)
            return list(found)
        # Checkpointed parts of a network that are entered anew know backward() alone.
        for parameter in parameters:
            parameter.grad = None
        loss.backward(retain_graph=True)  # type: ignore[no-untyped-call]
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
        for parameter in parameters:
            parameter.grad = None
        return gradients

    @contextmanager
    def _as_before(self, module: nn.Module) -> Iterator[None]:
        """What a backward pass draws and changes, where it computes a forward again, comes back."""
        device = self.train_step.accelerator.device
        before = [(buffer, buffer.clone()) for buffer in module.buffers()]
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            yield
        with torch.no_grad():
            for buffer, values in before:
                # Who writes tells the graph that it has lost what it needs.
                if not torch.equal(buffer, values):
                    buffer.copy_(values)

    def _zeros(self) -> torch.Tensor:
        count = sum(parameter.numel() for parameter in self.train_step.parameters)
        return torch.zeros(count, device=self.train_step.accelerator.device)
