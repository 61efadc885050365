"""One optimiser step: from weights, optimiser state and samples to the next weights and state."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

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
    """share of them that the model classified rightly, by the larger share, before the update"""


class TrainStep:
    """Computes optimiser steps of one model.

    Each micro-batch gives one *leaf* of the sum: the gradients of its part of the step's mean
    loss, a mask of the parameters that got one, its part of the loss and of the accuracy, and the
    changes of the buffers. With `reduction: fast` DDP sums the gradients instead, overlapped with
    the backward pass, and the leaf holds the rest.

    Buffers (batch norm's running statistics): every micro-batch starts from the step's own values.
    A floating-point buffer then moves by the mean of the micro-batches' changes, weighted by their
    samples; any other (batch norm's count of steps) becomes what the first micro-batch made of it.

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
        wrapped = isinstance(model, DistributedDataParallel)
        self.module = cast("nn.Module", model.module) if wrapped else model
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        self.full_mask = torch.ones(len(self.parameters), device=accelerator.device)
        self.some_missing = False

    def __call__(
        self, step: int, images: torch.Tensor, targets: torch.Tensor, sizes: Sequence[int]
    ) -> StepResult:
        """Do one step.

        Args:
            step: counted over the whole run from 1.
            images: this rank's samples, scaled: float32, (n, channels, height, width).
            targets: their classes, int64, (n,); or shares of the classes, float32, (n, classes).
            sizes: samples in each micro-batch of the step, over all processes.
        """
        self.optimizer.zero_grad()
        # DDP needs a backward pass on every rank, which a short step with empty pieces lacks.
        overlapped = self.model is not self.module and sizes[-1] > 0
        before = [buffer.detach().clone() for buffer in self._buffers()]
        own_sizes = [sizes[index] for index in self.own]
        sums = microbatch.Accumulator(self.microbatches)
        pieces = zip(
            self.own, torch.split(images, own_sizes), torch.split(targets, own_sizes), strict=True
        )
        for index, piece, piece_targets in pieces:
            self._set_buffers(before)
            seeding.seed_torch(self.seed, "forward", step, index)
            with self._synchronisation(overlapped, last=index == self.own[-1]):
                measured = self._backward(piece, piece_targets, sum(sizes), overlapped)
            gradients = [] if overlapped else self._take_gradients()
            changes = self._buffer_changes(before, len(piece) / sum(sizes), first=index == 0)
            sums.add(index, [measured, *changes, *gradients])
        measured, *total = microbatch.reduce(sums.nodes, self.microbatches)
        self._set_buffers(_changed(before, total[: len(before)]))
        if not overlapped:
            self._set_gradients(total[len(before) :])
        if self.config.clip_norm is not None:
            self.accelerator.clip_grad_norm_(self.parameters, self.config.clip_norm)
        self.optimizer.step()
        return StepResult(loss=measured[0], accuracy=measured[1])

    def _synchronisation(
        self, overlapped: bool, last: bool
    ) -> contextlib.AbstractContextManager[None]:
        """DDP's exchange, where there is one, happens in each rank's last backward pass alone."""
        if overlapped and not last:
            return cast("DistributedDataParallel", self.model).no_sync()
        return contextlib.nullcontext()

    def _backward(
        self, images: torch.Tensor, targets: torch.Tensor, total: int, overlapped: bool
    ) -> torch.Tensor:
        """Leave the gradients in the parameters; returns the parts of loss and accuracy: (2,)."""
        if len(targets) == 0:
            return torch.zeros(2, device=self.accelerator.device)
        logits = (self.model if overlapped else self.module)(images).float()
        smoothing = self.config.label_smoothing
        loss = F.cross_entropy(logits, targets, reduction="sum", label_smoothing=smoothing) / total
        # DDP takes the mean over the ranks where the sum is wanted.
        self.accelerator.backward(loss * self.accelerator.num_processes if overlapped else loss)
        classes = targets if targets.ndim == 1 else targets.argmax(1)
        hits = (logits.argmax(1) == classes).sum()
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

    def _buffers(self) -> Leaf:
        """Asked for anew each time, as a forward pass may put another tensor in a buffer's place.

        What the forward pass of a single micro-batch leaves in them is already right: then none.
        """
        return list(self.module.buffers()) if self.microbatches > 1 else []

    @torch.no_grad()
    def _set_buffers(self, values: Leaf) -> None:
        if values:
            torch._foreach_copy_(self._buffers(), values)

    @torch.no_grad()
    def _buffer_changes(self, before: Leaf, weight: float, first: bool) -> Leaf:
        """This micro-batch's parts of the sums that `_changed` takes."""
        pairs = zip(self._buffers(), before, strict=True)
        return [
            _nothing_if(weight == 0, (buffer - _finite(old)) * weight)
            if _is_averaged(buffer)
            else _nothing_if(not first, buffer.to(torch.int64, copy=True))
            for buffer, old in pairs
        ]


def _is_averaged(buffer: torch.Tensor) -> bool:
    return buffer.is_floating_point() or buffer.is_complex()


def _finite(buffer: torch.Tensor) -> torch.Tensor:
    """Zeros in place of what no change could be counted from: a plug-in may start at infinity."""
    return torch.nan_to_num(buffer, nan=0.0, posinf=0.0, neginf=0.0)


def _nothing_if(condition: bool, value: torch.Tensor) -> torch.Tensor:
    """No part of a sum; a factor of 0 would not do, as 0 * infinity is not a number."""
    return torch.zeros_like(value) if condition else value


def _changed(before: Leaf, sums: Leaf) -> Leaf:
    """The buffers after the step."""
    return [
        _finite(old) + total if _is_averaged(old) else total
        for old, total in zip(before, sums, strict=True)
    ]
