"""Optimisers and their parameter groups."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from trainer.config import OptimizerConfig


def build(config: OptimizerConfig, model: nn.Module) -> torch.optim.Optimizer:
    """The optimiser over the model's trainable parameters.

    Parameters of fewer than two dimensions (biases, norms) are not decayed. Adam's kernels are
    fused; SGD's fails where a parameter gets its first gradient after the first step.
    """
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    weights = [parameter for parameter in parameters if parameter.ndim >= 2]
    vectors = [parameter for parameter in parameters if parameter.ndim < 2]
    decayed = {"params": weights, "weight_decay": config.weight_decay}
    groups: list[dict[str, Any]] = [decayed, {"params": vectors, "weight_decay": 0.0}]
    momentum = config.momentum
    match config.name:
        case "sgd":
            nesterov = config.nesterov and momentum > 0
            return torch.optim.SGD(
                groups, config.lr, momentum=momentum, nesterov=nesterov, foreach=True
            )
        case "adam":
            return torch.optim.Adam(groups, config.lr, fused=True)
        case "adamw":
            return torch.optim.AdamW(groups, config.lr, fused=True)
        case "rmsprop":
            return torch.optim.RMSprop(groups, config.lr, momentum=momentum, foreach=True)
        case "muon":
            # The last matrix is the classifier, which Muon's author leaves to another optimiser.
            muon_group = decayed | {"params": weights[:-1], "muon": True}
            classifier = decayed | {"params": weights[-1:]}
            return Muon(
                [muon_group, classifier, groups[1]],
                config.lr,
                momentum=momentum,
                nesterov=config.nesterov,
            )


class Muon(torch.optim.Optimizer):
    """Muon for groups with `muon: True`, AdamW for the others, at one learning rate for both.

    Muon (Jordan et al., https://kellerjordan.github.io/posts/muon, 2024) replaces the momentum of
    a matrix by the nearest orthogonal one; a filter bank is taken as the matrix (filters, inputs x
    height x width). The update is scaled to the root mean square that AdamW's has, so that one
    learning rate and one weight decay serve both (Liu et al., Muon is Scalable for LLM Training,
    arXiv 2502.16982, section 2.2). AdamW (Loshchilov, Hutter, 2019) has betas 0.9 and 0.999.
    """

    def __init__(
        self, params: list[dict[str, Any]], lr: float, *, momentum: float, nesterov: bool
    ) -> None:
        defaults = {
            "lr": lr, "weight_decay": 0.0, "muon": False, "momentum": momentum,
            "nesterov": nesterov, "betas": (0.9, 0.999), "eps": 1e-8,
        }  # fmt: skip
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Update every parameter that has a gradient."""
        loss = None if closure is None else torch.enable_grad()(closure)()
        for group in self.param_groups:
            update = self._muon_update if group["muon"] else self._adamw_update
            for parameter in group["params"]:
                if parameter.grad is not None:
                    parameter.mul_(1.0 - group["lr"] * group["weight_decay"])
                    update(parameter, group)
        return loss

    def _muon_update(self, parameter: torch.Tensor, group: dict[str, Any]) -> None:
        state, gradient = self.state[parameter], parameter.grad
        assert gradient is not None
        if not state:
            state["momentum"] = torch.zeros_like(gradient)
        state["momentum"].lerp_(gradient, 1.0 - group["momentum"])
        direction = state["momentum"]
        if group["nesterov"]:
            direction = gradient.lerp(direction, group["momentum"])
        matrix = orthogonalise(direction.flatten(1))
        scale = 0.2 * math.sqrt(max(matrix.shape))
        parameter.add_(matrix.view(parameter.shape), alpha=-group["lr"] * scale)

    def _adamw_update(self, parameter: torch.Tensor, group: dict[str, Any]) -> None:
        state, gradient = self.state[parameter], parameter.grad
        assert gradient is not None
        if not state:
            state["step"] = 0
            state["mean"] = torch.zeros_like(gradient)
            state["square"] = torch.zeros_like(gradient)
        state["step"] += 1
        first, second = group["betas"]
        state["mean"].lerp_(gradient, 1.0 - first)
        state["square"].mul_(second).addcmul_(gradient, gradient, value=1.0 - second)
        deviation = (state["square"] / (1.0 - second ** state["step"])).sqrt_().add_(group["eps"])
        size = group["lr"] / (1.0 - first ** state["step"])
        parameter.addcdiv_(state["mean"], deviation, value=-size)


def orthogonalise(matrix: torch.Tensor, iterations: int = 5) -> torch.Tensor:
    """About the nearest matrix with orthonormal rows or columns: singular values near 1.

    The quintic Newton-Schulz iteration with the coefficients of Muon's author, in the precision of
    the input: on a CPU bfloat16 products are slower than float32.

    Args:
        matrix: (rows, columns).
        iterations: five bring the singular values into about [0.7, 1.2].
    """
    tall = matrix.shape[0] > matrix.shape[1]
    result = torch.t(matrix) if tall else matrix
    result = result / (result.norm() + 1e-7)
    for _ in range(iterations):
        gram = result @ torch.t(result)
        result = 3.4445 * result + (-4.7750 * gram + 2.0315 * gram @ gram) @ result
    return torch.t(result) if tall else result
