"""Do one optimiser step: forward, backward, the sum over micro-batches, and the update."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from accelerate import Accelerator
from accelerate.optimizer import AcceleratedOptimizer
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from trainer.base import out_of_memory, profiler_ranges, seeding
from trainer.base.flat_tensors import invert_permutation, memory_order
from trainer.config.schema import TrainConfig
from trainer.data import sampling
from trainer.network.buffers_in_passes import StepBuffers
from trainer.training import sharpness
from trainer.training.arriving_gradients import ArrivingGradients, choose_arrival, present_mask
from trainer.training.clipping import clip_gradients
from trainer.training.forward_pass import ForwardPass
from trainer.training.loss import TrainingLoss
from trainer.training.microbatches import divide
from trainer.training.step_sum import StepSum
from trainer.training.teacher import Teacher


@dataclass(frozen=True)
class StepResult:
    """Figures of a step over the samples of all processes: scalars that stay on the device."""

    loss: torch.Tensor
    """mean over the step's samples, whatever their weights"""
    accuracy: torch.Tensor
    """share of them that were answered rightly, before the update"""

    @classmethod
    def skipped(cls, device: torch.device) -> StepResult:
        """Return the result of a step that was left out: not a number."""
        nothing = torch.full((), torch.nan, device=device)
        return cls(nothing, nothing)


class TrainStep:
    """Computes optimiser steps of one model.

    Each micro-batch gives one *leaf* of the sum: the gradients of its part of the step's mean
    loss, a mask of the parameters that got one, its part of the loss and of the accuracy, and the
    changes of the buffers. With `reduction: fast` DDP sums the gradients instead, overlapped with
    the backward pass, and the leaf contains only the rest.

    Args:
        accelerator: for autocast, gradient scaling and clipping.
        module: as prepared by the accelerator, without DDP's wrapper.
        config: with `microbatches` filled in.
        frozen_norms: modules whose buffers no step changes.
        head: parameters that adaptive clipping leaves out.
        teacher: whose answers are learnt too; None: only the labels are.
        loss: of the samples; None: what `config` says, without an adjustment of the logits.

    Attributes:
        model: what a step calls: the module, or DDP around it if the reduction is fast and there
            are several processes.
        parameters: those that are trained.
    """

    def __init__(
        self,
        accelerator: Accelerator,
        module: nn.Module,
        optimizer: AcceleratedOptimizer,
        config: TrainConfig,
        seed: int,
        frozen_norms: Collection[nn.Module] = (),
        head: Collection[nn.Parameter] = (),
        teacher: Teacher | None = None,
        loss: TrainingLoss | None = None,
    ) -> None:
        assert config.microbatches is not None
        self.accelerator = accelerator
        self.optimizer = optimizer
        self.config = config
        self.seed = seed
        self.head = head
        self.teacher = teacher
        self.loss = loss or TrainingLoss(config)
        self.taught: torch.Tensor | None = None
        """what the teacher answers for the micro-batch: (n, classes)"""
        self.microbatches = config.microbatches
        rank, processes = accelerator.process_index, accelerator.num_processes
        self.own = sampling.rank_microbatches(rank, processes, config.microbatches)
        self.arriving: ArrivingGradients | None = None
        """of a network whose gradients are summed or exchanged while others are computed"""
        self.choose_parameters(module, frozen_norms)

    def choose_parameters(self, module: nn.Module, frozen_norms: Collection[nn.Module]) -> None:
        """Train the parameters that require a gradient now, from the next step on; a collective.

        Args:
            module: what is trained: the network, or its head on features.
        """
        self.module = module
        self.buffers = StepBuffers(self.module, frozen_norms)
        self.parameters = [p for p in self.module.parameters() if p.requires_grad]
        self.orders = [memory_order(parameter) for parameter in self.parameters]
        self.missing: set[int] = set()
        """parameters that have got no gradient from this rank in the step so far"""
        self.model = self.module
        if self.config.reduction == "fast" and self.accelerator.num_processes > 1:
            # DDP notes at its construction which parameters it is to sum.
            handler = self.accelerator.ddp_handler
            arguments = handler.to_kwargs() if handler else {}
            self.model = DistributedDataParallel(self.module, **arguments)
        if self.arriving:
            self.arriving.remove()
            self.arriving = None
        is_summed = self.config.reduction == "exact" and self.microbatches > 1
        if is_summed and (arrival := choose_arrival(self.parameters, self.accelerator)):
            self.arriving = ArrivingGradients(self.parameters, self.orders, arrival)
        self.forward_pass = ForwardPass(self.accelerator, self.module, self.config)

    def __call__(
        self,
        step: int,
        images: torch.Tensor,
        targets: torch.Tensor,
        sizes: Sequence[int],
        weights: torch.Tensor | None = None,
    ) -> StepResult:
        """Do one step.

        Args:
            step: counted over the whole run from 1.
            images: this rank's samples, scaled: float32, (n, channels, height, width).
            targets: their classes, int64, (n,); or shares of the classes, float32, (n, classes).
            sizes: samples in each micro-batch of the step, over all processes.
            weights: of this rank's samples in the step's mean loss, float32 (n,), which add up to 1
                over all processes; None: all alike.

        Raises:
            RankError: a micro-batch does not fit into the memory.
        """
        with seeding.preserve_other_generators(), self._explain_memory(max(sizes)):
            measured = self._compute_gradients(step, images, targets, sizes, weights)
            if self.config.sam_rho is not None:
                with sharpness.climb(self.parameters, self.config.sam_rho):
                    self.buffers.start_step()
                    self._compute_gradients(step, images, targets, sizes, weights)
                    self.buffers.restore()  # those of the first pass count
            return self._update(measured)

    def _compute_gradients(
        self,
        step: int,
        images: torch.Tensor,
        targets: torch.Tensor,
        sizes: Sequence[int],
        weights: torch.Tensor | None,
    ) -> torch.Tensor:
        """Leave the step's gradients and buffers in place; return loss and accuracy: (2,)."""
        self._clear_gradients()
        # DDP needs a backward pass on every rank, which a short step with empty pieces lacks.
        overlapped = self.model is not self.module and sizes[-1] > 0
        if self.microbatches > 1:
            return self._sum_microbatches(step, images, targets, sizes, weights, overlapped)
        # A sum of one: its gradients and its buffers are in place already.
        seeding.seed_all(self.seed, "forward", step, 0)
        return self._backward(images, targets, weights, sum(sizes), overlapped)

    def _update(self, measured: torch.Tensor) -> StepResult:
        """Take the optimiser's step with the gradients; `measured` is loss and accuracy: (2,)."""
        self.buffers.restore_strides()
        clip_gradients(self.accelerator, self.parameters, self.head, self.config)
        loss = measured[0]
        if self.config.on_nonfinite == "rollback" and self.accelerator.scaler is None:
            # A step that ruins the weights has to be noticed at this step.
            gradients = [p.grad for p in self.parameters if p.grad is not None]
            loss = loss + 0.0 * torch.nn.utils.get_total_norm(gradients)
        # Without a scaler Accelerate's wrapper only looks for a package on the disk, in each step.
        scaled = self.accelerator.scaler is not None
        with profiler_ranges.label("optimiser"):
            (self.optimizer if scaled else self.optimizer.optimizer).step()
        return StepResult(loss=loss, accuracy=measured[1])

    def _explain_memory(self, samples: int) -> contextlib.AbstractContextManager[None]:
        return out_of_memory.explain(
            f"train.microbatches: a micro-batch of {samples} samples",
            f"more than {self.microbatches} micro-batches make them smaller at the "
            f"same train.batch_size",
            self.accelerator.device,
        )

    def _sum_microbatches(
        self,
        step: int,
        images: torch.Tensor,
        targets: torch.Tensor,
        sizes: Sequence[int],
        weights: torch.Tensor | None,
        overlapped: bool,
    ) -> torch.Tensor:
        """Leave the sums in gradients and buffers; return loss and accuracy: (2,)."""
        buffers = self.buffers
        buffers.start_step()
        sums = StepSum(self.microbatches)
        self.missing = set(range(len(self.parameters)))
        pieces = divide(self.own, images, targets, sizes, weights)
        for index, piece, piece_targets, piece_weights in pieces:
            if index != self.own[0]:
                buffers.restore()
            seeding.seed_all(self.seed, "forward", step, index)
            # DDP exchanges gradients only in each rank's last backward pass.
            ddp = cast("DistributedDataParallel", self.model)
            is_last = index == self.own[-1]
            arriving = self.arriving
            if arriving and not arriving.may_take(is_last=is_last):
                arriving = None
            if arriving:
                loss_and_accuracy = torch.empty(2, device=self.accelerator.device)
                arriving.begin(sums, index, [loss_and_accuracy, *buffers.changes(0.0, first=False)])
            with ddp.no_sync() if overlapped and not is_last else contextlib.nullcontext():
                measured = self._backward(
                    piece, piece_targets, piece_weights, sum(sizes), overlapped
                )
            with profiler_ranges.label("reduction"):
                changes = buffers.changes(len(piece) / sum(sizes), index == 0)
                if arriving:
                    self.missing &= arriving.complete([measured, *changes])
                    continue
                leaf = [measured, *changes, *([] if overlapped else self._take_gradients())]
                sums.add(index, leaf)
                del leaf  # the next micro-batch needs the memory
        with profiler_ranges.label("reduction"):
            with profiler_ranges.label("exchange"):
                measured, *total = sums.finish()
            buffers.finish(total[: len(changes)])
            if not overlapped:
                self._set_gradients(total[len(changes) :])
        # A view would keep the whole vector alive for as long as the step's figures wait.
        return measured.clone()

    def compute_alone(
        self,
        images: torch.Tensor,
        targets: torch.Tensor,
        sizes: Sequence[int],
        weights: torch.Tensor | None,
    ) -> None:
        """Compute this rank's first micro-batches, one or two, as a step does; keep no gradients.

        Buffers stay as the last one has left them.
        """
        self.buffers.start_step()
        sums = StepSum(self.microbatches)
        self.missing = set()
        pieces = itertools.islice(divide(self.own, images, targets, sizes, weights), 2)
        for index, piece, piece_targets, piece_weights in pieces:
            self.buffers.restore()
            seeding.seed_all(self.seed, "forward", 1, index)
            measured = self._backward(piece, piece_targets, piece_weights, sum(sizes), False)
            if self.microbatches > 1:
                changes = self.buffers.changes(len(piece) / sum(sizes), index == 0)
                sums.add(index, [measured, *changes, *self._take_gradients()])
        self._clear_gradients()

    def _backward(
        self,
        images: torch.Tensor,
        targets: torch.Tensor,
        weights: torch.Tensor | None,
        total: int,
        overlapped: bool,
    ) -> torch.Tensor:
        """Leave the gradients in the parameters; return the parts of loss and accuracy: (2,)."""
        if len(targets) == 0:
            return torch.zeros(2, device=self.accelerator.device)
        with profiler_ranges.label("forward"):
            self.taught = self.teacher.answer(images) if self.teacher else None
            with self.forward_pass.prepared():
                logits = (self.model if overlapped else self.module)(images).float()
            if weights is None:
                loss = weighted = self.loss.sum(logits, targets, self.taught) / total
            else:
                losses = self.loss.of_samples(logits, targets, self.taught)
                loss, weighted = losses.detach().sum() / total, (losses * weights).sum()
        watched = self.arriving.watch_pass() if self.arriving else contextlib.nullcontext()
        with profiler_ranges.label("backward"), watched:
            # DDP takes the mean over the ranks, but the sum is wanted.
            ranks = self.accelerator.num_processes
            self.accelerator.backward(weighted * ranks if overlapped else weighted)
        hits = self.loss.count_hits(logits, targets)
        return torch.stack([loss.detach(), hits / total])

    def _clear_gradients(self) -> None:
        for parameter in self.parameters:
            parameter.grad = None

    def _take_gradients(self) -> list[torch.Tensor]:
        """Return a mask of the parameters with a gradient, and all gradients, zeros for the rest.

        Their dimensions are permuted into the order of the parameters' memory.
        """
        gradients = [parameter.grad for parameter in self.parameters]
        self._clear_gradients()
        missing = {number for number, gradient in enumerate(gradients) if gradient is None}
        self.missing &= missing
        mask = present_mask(len(gradients), missing, self.accelerator.device)
        filled = [
            (torch.zeros_like(parameter) if gradient is None else gradient).permute(order)
            for parameter, gradient, order in zip(
                self.parameters, gradients, self.orders, strict=True
            )
        ]
        return [mask, *filled]

    def _set_gradients(self, total: list[torch.Tensor]) -> None:
        """Give the sums to the parameters; a parameter without a gradient on any rank gets none."""
        mask, *gradients = total
        present = [number not in self.missing for number in range(len(gradients))]
        if self.missing and self.accelerator.num_processes > 1:
            present = mask.bool().tolist()  # waits for the device
        sums = zip(self.parameters, gradients, self.orders, present, strict=True)
        for parameter, gradient, order, is_present in sums:
            parameter.grad = gradient.permute(invert_permutation(order)) if is_present else None
