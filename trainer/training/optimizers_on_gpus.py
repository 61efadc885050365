"""Optimisers of torch that read numbers of their own in each step, without that on a GPU.

The host would wait for the GPU at each number. Where torch can go without it, it has an argument
for this, `capturable`; Adafactor has none.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch

CAPTURABLE_DEVICES = ("cuda", "xpu")
CAPTURABLE = ("ASGD", "Rprop")
"""those that wait, unless they are built with capturable=True"""


def without_waiting(
    kind: type[torch.optim.Optimizer], device: torch.device
) -> tuple[type[torch.optim.Optimizer], dict[str, Any]]:
    """Return what to build in place of an optimiser of torch, and further arguments for it."""
    if device.type in CAPTURABLE_DEVICES and kind.__name__ in CAPTURABLE:
        return kind, {"capturable": True}
    if device.type != "cpu" and kind is torch.optim.Adafactor:
        return Adafactor, {}
    return kind, {}


class Adafactor(torch.optim.Adafactor):
    """Torch's, but the norms of weights and updates stay on the device; `foreach` does not matter.

    Shazeer and Stern: Adafactor: Adaptive Learning Rates with Sublinear Memory Cost, 2018, arXiv
    1804.04235, with the changes that torch's documentation describes.
    """

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Update every parameter that has a gradient."""
        loss = None if closure is None else torch.enable_grad()(closure)()
        for group in self.param_groups:
            columns: tuple[list[Any], ...] = tuple([] for _ in range(6))
            self._init_group(group, *columns)
            for parameter, gradient, *state in zip(*columns, strict=True):
                _update(group, parameter, -gradient if group["maximize"] else gradient, *state)
        return loss


def _update(
    group: dict[str, Any],
    parameter: torch.Tensor,
    gradient: torch.Tensor,
    row_variance: torch.Tensor | None,
    column_variance: torch.Tensor | None,
    variance: torch.Tensor | None,
    count: torch.Tensor,
) -> None:
    """Update one parameter; `count`, of its steps, is on the CPU."""
    smallest, least_size = group["eps"]
    if smallest is None:
        smallest = torch.finfo(parameter.dtype).eps
    count += 1
    new_share = count.item() ** group["beta2_decay"]
    rate = min(group["lr"], count.item() ** -0.5)
    size = _root_mean_square(parameter).clamp_(min=least_size)
    if group["weight_decay"]:
        parameter.mul_(1 - group["lr"] * group["weight_decay"])
    squares = gradient.square()
    if row_variance is not None and column_variance is not None:
        row_variance.lerp_(squares.mean(-1, keepdim=True), new_share)
        column_variance.lerp_(squares.mean(-2, keepdim=True), new_share)
        estimate = row_variance @ column_variance
        estimate.div_(row_variance.mean(-2, keepdim=True).clamp_(min=smallest))
    else:
        assert variance is not None
        variance.lerp_(squares, new_share)
        estimate = variance.clone()
    update = estimate.clamp_(min=smallest**2).rsqrt_().mul_(gradient)
    excess = _root_mean_square(update).div_(group["d"]).clamp_(min=1.0)
    parameter.sub_(update.mul_(size.mul_(rate).div_(excess)))


def _root_mean_square(tensor: torch.Tensor) -> torch.Tensor:
    norm: torch.Tensor = torch.linalg.vector_norm(tensor)
    return norm.div_(math.sqrt(tensor.numel()))
