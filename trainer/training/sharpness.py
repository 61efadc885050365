"""Sharpness-aware minimisation: the gradient where the loss is about to be largest nearby.

Foret et al.: Sharpness-Aware Minimization for Efficiently Improving Generalization, 2021,
arXiv 2010.01412. A step has two passes over its samples. The first gives the gradient g of the
whole step, the second that at the weights + rho * g / |g|, which the optimiser then uses at the
weights. Both are summed over all processes, so that no process climbs along a gradient of its own,
and the bits are the same on any number of them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import torch
from torch import nn

from trainer.base.flat_tensors import copy_all, group_by_type

_SMALLEST_NORM = 1e-12
"""so that a gradient of zeros divides by something"""


@contextlib.contextmanager
def climb(parameters: Sequence[nn.Parameter], rho: float) -> Iterator[None]:
    """Move the parameters along their gradients by `rho` inside, then put them back exactly."""
    pairs = [(one, one.grad) for one in parameters if one.grad is not None]
    moved: list[torch.Tensor] = [parameter for parameter, _ in pairs]
    gradients = [gradient for _, gradient in pairs]
    with torch.no_grad():
        before = [parameter.clone() for parameter in moved]
        scale = rho / (torch.nn.utils.get_total_norm(gradients) + _SMALLEST_NORM)
        for ours, along in group_by_type(moved, gradients):
            torch._foreach_add_(ours, list(torch._foreach_mul(along, scale)))
    try:
        yield
    finally:
        with torch.no_grad():
            copy_all(moved, before)
