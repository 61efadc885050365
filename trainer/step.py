"""One optimiser step: from weights, optimiser state and samples to the next weights and state."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812
from accelerate import Accelerator
from accelerate.optimizer import AcceleratedOptimizer
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from trainer import microbatch, seeding
from trainer.config import TrainConfig
from trainer.microbatch import Leaf


@dataclass(frozen=True)
class StepResult:
    """What a step measured over the samples of all processes: scalars left on the device."""

    loss: torch.Tensor
    """mean over the step's samples"""
    accuracy: torch.Tensor
    """share of them that the model classified rightly before the update"""


class TrainStep:
    """Computes optimiser steps of one model.

    Each micro-batch gives one *leaf* of the sum: the gradients of its part of the step's mean
    loss, a mask of the parameters that got one, its part of the loss and of the accuracy, and the
    changes of the buffers. With `reduction: fast` DDP sums the gradients instead, overlapped with
    the backward pass, and the leaf holds the rest.

    Buffers (batch norm's running statistics): every micro-batch starts from the step's own values.
    A floating-point buffer then moves by the mean of the micro-batches' changes, weighted by their
    samples; any other (batch norm's count of steps) by the change of the first micro-batch.

    Args:
        accelerator: for autocast, gradient scaling and clipping.
        model: as prepared by the accelerator; in DDP's wrapper where the reduction is fast and
            there are several processes.
        optimizer: prepared by the accelerator.
        config: with `microbatches` filled in.
        seed: the run's seed.
    """

    def __init__(
        self,
        accelerator: Accelerator,
        model: nn.Module,
        optimizer: AcceleratedOptimizer,
        config: TrainConfig,
        seed: int,
    ) -> None:
        assert config.microbatches is not None
        self.accelerator = accelerator
        self.model = model
        self.optimizer = optimizer
        self.config = config
        self.seed = seed
        self.microbatches = config.microbatches
        rank, processes = accelerator.process_index, accelerator.num_processes
        self.own = microbatch.share(rank, processes, config.microbatches)
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        # What the forward pass of a single micro-batch leaves in the buffers is already right.
        buffers = list(model.buffers()) if config.microbatches > 1 else []
        self.averaged = [buffer for buffer in buffers if buffer.is_floating_point()]
        self.counted = [buffer for buffer in buffers if not buffer.is_floating_point()]
        self.full_mask = torch.ones(len(self.parameters), device=accelerator.device)
        self.some_missing = False

    def __call__(
        self, step: int, images: torch.Tensor, targets: torch.Tensor, sizes: Sequence[int]
    ) -> StepResult:
        """Do one step.

        Args:
            step: counted over the whole run from 1.
            images: this rank's samples, scaled: float32, (n, channels, height, width).
            targets: their classes, int64, (n,).
            sizes: samples in each micro-batch of the step, over all processes.
        """
        self.optimizer.zero_grad()
        # DDP needs a backward pass on every rank, which a short step with empty pieces lacks.
        overlapped = isinstance(self.model, DistributedDataParallel) and sizes[-1] > 0
        before = [buffer.clone() for buffer in self.averaged + self.counted]
        own_sizes = [sizes[index] for index in self.own]
        sums = microbatch.Accumulator(self.microbatches)
        pieces = zip(
            self.own, torch.split(images, own_sizes), torch.split(targets, own_sizes), strict=True
        )
        for index, piece, piece_targets in pieces:
            self._restore(before)
            seeding.seed_torch(self.seed, "forward", step, index)
            with self._synchronisation(overlapped and index == self.own[-1]):
                measured = self._backward(piece, piece_targets, sum(sizes), overlapped)
            gradients = [] if overlapped else self._take_gradients()
            changes = self._buffer_changes(before, len(piece) / sum(sizes), first=index == 0)
            sums.add(index, [measured, *changes, *gradients])
        measured, *total = microbatch.reduce(sums.nodes, self.microbatches)
        self._apply_buffer_changes(before, total[: len(before)])
        if not overlapped:
            self._set_gradients(total[len(before) :])
        if self.config.clip_norm is not None:
            self.accelerator.clip_grad_norm_(self.parameters, self.config.clip_norm)
        self.optimizer.step()
        return StepResult(loss=measured[0], accuracy=measured[1])

    def _synchronisation(self, wanted: bool) -> contextlib.AbstractContextManager[None]:
        """DDP's exchange, if this is DDP, happens in each rank's last backward pass alone."""
        if isinstance(self.model, DistributedDataParallel) and not wanted:
            return self.model.no_sync()
        return contextlib.nullcontext()

    def _backward(
        self, images: torch.Tensor, targets: torch.Tensor, total: int, overlapped: bool
    ) -> torch.Tensor:
        """Leave the gradients in the parameters; returns the parts of loss and accuracy: (2,)."""
        if len(targets) == 0:
            return torch.zeros(2, device=self.accelerator.device)
        logits = self.model(images).float()
        smoothing = self.config.label_smoothing
        loss = F.cross_entropy(logits, targets, reduction="sum", label_smoothing=smoothing) / total
        # DDP takes the mean over the ranks where the sum is wanted.
        self.accelerator.backward(loss * self.accelerator.num_processes if overlapped else loss)
        hits = (logits.argmax(1) == targets).sum()
        return torch.stack([loss.detach(), hits / total])

    def _take_gradients(self) -> Leaf:
        """The gradients, zeros for those that are missing, and the mask of those that are there."""
        gradients = [parameter.grad for parameter in self.parameters]
        self.optimizer.zero_grad()
        mask = self.full_mask.clone()
        if any(gradient is None for gradient in gradients):
            self.some_missing = True
            mask.copy_(torch.tensor([gradient is not None for gradient in gradients]))
        filled = [
            torch.zeros_like(parameter) if gradient is None else gradient
            for parameter, gradient in zip(self.parameters, gradients, strict=True)
        ]
        return [mask, *filled]

    def _set_gradients(self, total: Leaf) -> None:
        """Hand the sums to the parameters; where no rank had a gradient, there is none."""
        mask, *gradients = total
        # Reading the mask waits for the device; who had every gradient himself knows the sum.
        present = mask.tolist() if self.some_missing else [1.0] * len(gradients)
        self.some_missing = False
        for parameter, gradient, ranks in zip(self.parameters, gradients, present, strict=True):
            parameter.grad = gradient if ranks else None

    def _restore(self, before: Leaf) -> None:
        if before:
            torch._foreach_copy_(self.averaged + self.counted, before)

    def _buffer_changes(self, before: Leaf, weight: float, first: bool) -> Leaf:
        middle = len(self.averaged)
        averaged = zip(self.averaged, before[:middle], strict=True)
        counted = zip(self.counted, before[middle:], strict=True)
        changes = [(buffer - old) * weight for buffer, old in averaged]
        return changes + [(buffer.long() - old.long()).float() * first for buffer, old in counted]

    def _apply_buffer_changes(self, before: Leaf, changes: Leaf) -> None:
        self._restore(before)
        for buffer, change in zip(self.averaged + self.counted, changes, strict=True):
            buffer.add_(change if buffer.is_floating_point() else change.round().to(buffer.dtype))
