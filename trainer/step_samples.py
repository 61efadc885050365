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

from trainer import microbatch
from trainer.batches import Batch
from trainer.step import TrainStep


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
        self._samples = sum(batch.sizes)
        self._sums = microbatch.Accumulator(train_step.microbatches)
        own_sizes = [batch.sizes[index] for index in train_step.own]
        pieces = zip(train_step.own, torch.split(batch.targets, own_sizes), strict=True)
        self._coming = [(index, targets) for index, targets in pieces if len(targets)]
        self._empty = [
            index for index, size in zip(train_step.own, own_sizes, strict=True) if not size
        ]

    @contextmanager
    def watching(self) -> Iterator[None]:
        """The step is done inside."""
        handle = self.train_step.module.register_forward_hook(self._look)
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
        (total,) = microbatch.reduce(self._sums.nodes, self.train_step.microbatches)
        return float(total.norm())

    def _look(self, module: nn.Module, inputs: object, logits: torch.Tensor) -> None:
        index, targets = self._coming.pop(0)
        logits = logits.float()
        smoothing = self.train_step.config.label_smoothing
        losses = F.cross_entropy(logits, targets, reduction="none", label_smoothing=smoothing)
        norms, total = [], self._zeros()
        for loss in losses:
            gradients = torch.autograd.grad(
                loss, self.train_step.parameters, retain_graph=True, materialize_grads=True
            )
            gradient = torch.cat([piece.flatten().float() for piece in gradients])
            norms.append(float(gradient.norm()))
            total += gradient / self._samples
            self.sample_done()
        self._sums.add(index, [total])
        probabilities, predicted = logits.detach().softmax(1).max(1)
        columns = (losses.tolist(), norms, predicted.tolist(), probabilities.tolist())
        self.figures += [SampleFigures(index, *row) for row in zip(*columns, strict=True)]

    def _zeros(self) -> torch.Tensor:
        count = sum(parameter.numel() for parameter in self.train_step.parameters)
        return torch.zeros(count, device=self.train_step.accelerator.device)
