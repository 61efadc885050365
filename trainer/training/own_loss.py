"""A loss of the user's own, and whether it keeps what a run promises."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

from trainer.base import seeding
from trainer.base.operators import PortabilityCheck
from trainer.config import plugins

_MOST_TRIED = 256
"""classes as targets, and as many samples"""


class OwnLoss:
    """The loss that a user's function or class computes.

    A function is called with logits, targets and the arguments; of a class the arguments make an
    object, which is called with logits and targets.

    Args:
        name: `train.loss`.
        arguments: `train.loss_args`.

    Raises:
        UserError: there is nothing of this name, or it takes other arguments.
    """

    def __init__(self, name: str, arguments: Mapping[str, Any]) -> None:
        self.plugin = plugins.find("loss", name)
        self.arguments = {} if isinstance(self.plugin.member, type) else dict(arguments)
        self.member = self.plugin.member
        if isinstance(self.plugin.member, type):
            with self.plugin.explain_errors():
                self.member = self.plugin.member(**arguments)
        if isinstance(self.member, nn.Module) and any(True for _ in self.member.parameters()):
            raise self.plugin.error(
                "has parameters, which no optimiser would train and no checkpoint keep; what is "
                "learnt must be in the network"
            )

    def __call__(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Return the loss of each sample, float32 (n,).

        Raises:
            UserError: it is something else.
        """
        found: object = self.member(logits, targets, **self.arguments)
        wanted = f"the loss of each sample, a float tensor of shape ({len(logits)},)"
        if not isinstance(found, torch.Tensor):
            raise self.plugin.error(f"returns a {type(found).__name__}, where {wanted}, must be")
        if found.shape != logits.shape[:1] or not found.is_floating_point():
            raise self.plugin.error(
                f"returns a tensor of shape {tuple(found.shape)} and type {found.dtype} for logits "
                f"of shape {tuple(logits.shape)}; it must return {wanted}, without taking a mean"
            )
        return found.float()

    def check(self, classes: int, *, shares: bool, portable: bool) -> None:
        """Try it on made-up logits, for every class as the target.

        Args:
            classes: how many there are.
            shares: whether the run's targets are shares of the classes.
            portable: whether every processor has to give the same bits.

        Raises:
            UserError: names train.loss and what is wrong.
        """
        watch = PortabilityCheck()
        with (
            seeding.preserve_generators(),
            self.plugin.explain_errors(),
            watch if portable else contextlib.nullcontext(),
        ):
            self._try(classes, shares)
        if doubt := watch.describe():
            raise self.plugin.error(f"{doubt}; use others, or train.kernels: native")

    def check_values(self, losses: torch.Tensor, logits: torch.Tensor) -> None:
        """Make sure that finite logits have finite losses.

        Raises:
            UserError: they have not.
        """
        bad = ~losses.isfinite() & logits.isfinite().all(1)
        if bool(bad.any()):
            raise self.plugin.error(
                f"returns {float(losses[bad][0])} for the logits "
                f"{[round(value, 4) for value in logits[bad][0].tolist()[:8]]}; it must be finite "
                f"(log of 0, or a division by 0?)"
            )

    def _try(self, classes: int, shares: bool) -> None:
        count = min(classes, _MOST_TRIED)
        targets = torch.arange(count) * classes // count
        one_hot = F.one_hot(targets, classes).float()
        generator = torch.Generator().manual_seed(0)
        logits = torch.randn(count, classes, generator=generator) * 2.0
        wanted = (one_hot * 0.75 + one_hot.roll(1, 0) * 0.25) if shares else targets
        first, gradient = self._compute(logits, wanted)
        if not bool(gradient.isfinite().all()):
            raise self.plugin.error("has a gradient that is not finite, for logits such as 1.5")
        self._compute(-logits[:1], wanted[:1])  # a single sample is a batch too
        again, _ = self._compute(logits, wanted)
        if not torch.equal(first, again):
            raise self.plugin.error(
                "returns other numbers for the same logits the second time, so that they would "
                "depend on the process; it must not remember anything, and draw only from torch's "
                "own generator"
            )

    def _compute(
        self, logits: torch.Tensor, targets: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the losses of some logits, and the gradient of their sum."""
        seeding.seed_all(0, "forward", 1, 0)
        inputs = logits.clone().requires_grad_()
        losses = self(inputs, targets.clone())
        self.check_values(losses.detach(), logits)
        if not losses.requires_grad:
            raise self.plugin.error("does not depend on the logits in a way that has a gradient")
        (gradient,) = torch.autograd.grad(losses.sum(), inputs, allow_unused=True)
        if gradient is None:
            raise self.plugin.error("does not depend on the logits")
        return losses.detach(), gradient
