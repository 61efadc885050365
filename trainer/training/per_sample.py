"""Measure each sample's part in a step: its loss and gradient in the step's own forward pass.

A sample's gradient is that of its own loss through the whole micro-batch, in training mode: batch
norm's statistics connect the samples, so it depends on the others too. The mean of the samples'
gradients, by their weights where they have some, is the step's gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn.modules.module import register_module_forward_hook

from trainer.data.batches import Batch
from trainer.training import microbatches
from trainer.training.step import TrainStep
from trainer.training.step_sum import StepSum


@dataclass(frozen=True)
class SampleFigures:
    """The figures of one sample, before the step's update."""

    microbatch: int
    """its index, from 0"""
    loss: float
    """not yet divided by the number of samples, nor weighed"""
    gradient_norm: float
    """of the gradient of that loss, over all parameters"""
    predicted: int
    """the most probable class, or label"""
    probability: float
    """of that class"""


class SampleWatch:
    """Watches the forward passes of one step, without changing them.

    Args:
        batch: this rank's part of the step.
        sample_done: called after each sample, since each takes a separate backward pass.
    """

    def __init__(
        self, train_step: TrainStep, batch: Batch, sample_done: Callable[[], object]
    ) -> None:
        self.train_step = train_step
        self.sample_done = sample_done
        self.figures: list[SampleFigures] = []
        """of this rank's samples, in their order"""
        self._sums = StepSum(train_step.microbatches)
        sizes, targets = batch.microbatch_sizes, batch.targets
        weights = batch.weights
        if weights is None:
            weights = torch.full((len(targets),), 1.0 / sum(sizes), device=targets.device)
        pieces = list(microbatches.divide(train_step.own, batch.images, targets, sizes, weights))
        self._coming = [piece for piece in pieces if len(piece[1])]
        self._empty = [index for index, images, *_ in pieces if not len(images)]

    @contextmanager
    def observe_step(self) -> Iterator[None]:
        """Observe the step that is done inside."""
        module = self.train_step.module
        if isinstance(module, torch.jit.ScriptModule):  # it takes no hook itself
            handle = register_module_forward_hook(
                lambda called, inputs, logits: (
                    self._record(called, inputs, logits) if called is module else None
                )
            )
        else:
            handle = module.register_forward_hook(self._record)
        try:
            yield
        finally:
            handle.remove()

    def gradient_norm(self) -> float:
        """Return the norm of the whole step's gradient, before any clipping; a collective.

        It is added up in the order of the step, so it has the same bits on any number of
        processes.
        """
        for index in self._empty:
            self._sums.add(index, [self._zeros()])
        (total,) = self._sums.finish()
        return float(total.norm())

    def _record(self, module: nn.Module, inputs: object, logits: torch.Tensor) -> None:
        if not self._coming:  # the second pass of a step with train.sam_rho
            return
        index, _, targets, weights = self._coming.pop(0)
        assert weights is not None
        logits = logits.float()
        step = self.train_step
        losses = step.loss.of_samples(logits, targets, step.taught)
        norms, total = [], self._zeros()
        with self._preserve(module):
            for loss, weight in zip(losses, weights, strict=True):
                gradient = torch.cat([piece.flatten().float() for piece in self._gradients(loss)])
                norms.append(float(gradient.norm()))
                total += gradient * weight
                self.sample_done()
        self._sums.add(index, [total])
        shares = logits.detach().sigmoid() if step.loss.several else logits.detach().softmax(1)
        probabilities, predicted = shares.max(1)
        columns = (losses.tolist(), norms, predicted.tolist(), probabilities.tolist())
        self.figures += [SampleFigures(index, *row) for row in zip(*columns, strict=True)]

    def _gradients(self, loss: torch.Tensor) -> list[torch.Tensor]:
        """Return the gradient of each parameter; the graph stays."""
        parameters = self.train_step.parameters
        if self.train_step.model is not self.train_step.module:
            # DDP would exchange gradients that backward() leaves in the parameters.
            found = torch.autograd.grad(loss, parameters, retain_graph=True, materialize_grads=True)
            return list(found)
        # Parts of a network that are checkpointed and run again only support backward().
        for parameter in parameters:
            parameter.grad = None
        loss.backward(retain_graph=True)  # type: ignore[no-untyped-call]
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
        for parameter in parameters:
            parameter.grad = None
        return gradients

    @contextmanager
    def _preserve(self, module: nn.Module) -> Iterator[None]:
        """Restore what a backward pass draws and changes when it computes a forward pass again."""
        device = self.train_step.accelerator.device
        before = [(buffer, buffer.clone()) for buffer in module.buffers()]
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            yield
        with torch.no_grad():
            for buffer, values in before:
                # Any write tells the graph that a value it needs is lost.
                if not torch.equal(buffer, values):
                    buffer.copy_(values)

    def _zeros(self) -> torch.Tensor:
        count = sum(parameter.numel() for parameter in self.train_step.parameters)
        return torch.zeros(count, device=self.train_step.accelerator.device)
