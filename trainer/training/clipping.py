"""Limit the gradient of a step before the optimiser sees it."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import torch
from accelerate import Accelerator
from torch import nn

from trainer.config.schema import TrainConfig

SMALLEST_NORM = 1e-3
"""of a filter's weights in adaptive clipping: new ones, which are zero, can grow"""


def clip_gradients(
    accelerator: Accelerator,
    parameters: Sequence[nn.Parameter],
    head: Collection[nn.Parameter],
    config: TrainConfig,
) -> None:
    """Limit the gradients of the parameters in place, if the configuration asks for it.

    Args:
        head: those of the last layer, which adaptive clipping leaves out.
    """
    limit = config.clip_norm
    if limit is None:
        return
    match config.clip_mode:
        case "norm":
            # Accelerate's own method imports the whole of torch.distributed.tensor first.
            accelerator.unscale_gradients()
            nn.utils.clip_grad_norm_(parameters, limit)
        case "value":
            accelerator.clip_grad_value_(parameters, limit)
        case "agc":
            accelerator.unscale_gradients()
            left_out = set(map(id, head))
            clip_adaptively([one for one in parameters if id(one) not in left_out], limit)


@torch.no_grad()
def clip_adaptively(parameters: Sequence[nn.Parameter], limit: float) -> None:
    """Limit the norm of each filter's gradient to a share of the norm of its weights.

    Adaptive gradient clipping (Brock et al.: High-Performance Large-Scale Image Recognition Without
    Normalization, 2021, arXiv 2102.06171, section 4). A filter is a row of a matrix, or what makes
    one channel of the output; a bias or the vectors of a norm count as one.

    Args:
        limit: the share, 0.01 in the paper.
    """
    for parameter in parameters:
        gradient = parameter.grad
        if gradient is None:
            continue
        largest = _filter_norms(parameter).clamp_(min=SMALLEST_NORM).mul_(limit)
        norms = _filter_norms(gradient)
        factors = largest / torch.where(norms > largest, norms, largest)
        gradient.mul_(factors)


def _filter_norms(tensor: torch.Tensor) -> torch.Tensor:
    """Return the norm of each filter, in a shape that multiplies the tensor."""
    dimensions = tuple(range(1, tensor.ndim)) if tensor.ndim > 1 else None
    norms: torch.Tensor = torch.linalg.vector_norm(tensor, dim=dimensions, keepdim=True)
    return norms
