"""Optimisers and their parameter groups."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import nn

from trainer.config import plugins
from trainer.config.schema import OptimizerConfig
from trainer.training import user_optimizer

Kind = TypeVar("Kind", bound=torch.optim.Optimizer)


def build(config: OptimizerConfig, model: nn.Module) -> torch.optim.Optimizer:
    """Build the optimiser over the model's trainable parameters.

    Parameters of fewer than two dimensions (biases, norms) are not decayed. Adam and AdamW use
    torch's fused kernels, which round alike on every CPU; the fused kernel of SGD fails if a
    parameter gets its first gradient after the first step.

    Raises:
        UserError: a user-defined optimiser breaks a rule.
    """
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    weights = [parameter for parameter in parameters if parameter.ndim >= 2]
    vectors = [parameter for parameter in parameters if parameter.ndim < 2]
    decayed = {"params": weights, "weight_decay": config.weight_decay}
    groups: list[dict[str, Any]] = [decayed, {"params": vectors, "weight_decay": 0.0}]
    if not plugins.is_built_in("optimizer", config.name):
        return user_optimizer.build(config, groups)
    if not config.weight_decay and config.name != "muon":  # each group is a call of the kernels
        groups = [{"params": parameters, "weight_decay": 0.0}]
    lr, momentum = config.lr, config.momentum
    match config.name:
        case "sgd":
            nesterov = config.nesterov and momentum > 0
            sgd = skip_compiler_import(torch.optim.SGD)
            return sgd(groups, lr, momentum=momentum, nesterov=nesterov, foreach=True)
        case "adam":
            return skip_compiler_import(torch.optim.Adam)(groups, lr, fused=True)
        case "adamw":
            return skip_compiler_import(torch.optim.AdamW)(groups, lr, fused=True)
        case "rmsprop":
            return skip_compiler_import(torch.optim.RMSprop)(
                groups, lr, momentum=momentum, foreach=True
            )
        case "muon":
            # The last matrix is the classifier, which Muon's author leaves to another optimiser.
            matrices = decayed | {"params": weights[:-1], "muon": True}
            classifier = decayed | {"params": weights[-1:]}
            return skip_compiler_import(Muon)(
                [matrices, classifier, groups[1]], lr, momentum=momentum, nesterov=config.nesterov
            )
    raise AssertionError(config.name)


def skip_compiler_import(kind: type[Kind]) -> type[Kind]:
    """Derive an optimiser that does not import torch's compiler, which takes about a second.

    Torch wraps these methods to keep them out of compiled code. Nothing compiles an optimiser here.
    """
    names = ("add_param_group", "zero_grad", "state_dict", "load_state_dict")
    methods = {name: inspect.unwrap(getattr(kind, name)) for name in names}
    return type(kind.__name__, (kind,), methods | {"step": _plain_step(kind)})


def _plain_step(kind: type[torch.optim.Optimizer]) -> Callable[..., Any]:
    step: Callable[..., Any] = torch.no_grad()(inspect.unwrap(kind.step))
    return step


class Muon(torch.optim.AdamW):
    """Muon for groups with `muon: True`, AdamW for the others, with one learning rate for both.

    Muon (Jordan et al., https://kellerjordan.github.io/posts/muon, 2024) replaces the momentum of
    a matrix by the nearest orthogonal one; a filter bank is treated as the matrix (filters, inputs
    x height x width). The update is scaled to the root mean square of AdamW's, so that one learning
    rate and one weight decay serve both (Liu et al., Muon is Scalable for LLM Training,
    arXiv 2502.16982, section 2.2).
    """

    def __init__(
        self, params: list[dict[str, Any]], lr: float, *, momentum: float, nesterov: bool
    ) -> None:
        super().__init__(params, lr, fused=True)
        self.momentum = momentum
        self.nesterov = nesterov
        # Tells a scaler of gradients that only the fused kernel could undo the scaling by itself.
        self._step_supports_amp_scaling = False

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Update every parameter that has a gradient."""
        loss = None if closure is None else torch.enable_grad()(closure)()
        matrices = [
            (parameter, parameter.grad, group)
            for group in self.param_groups
            for parameter in (group["params"] if group.get("muon") else ())
        ]
        for parameter, _, _ in matrices:
            parameter.grad = None  # AdamW leaves out parameters without a gradient
        _plain_step(torch.optim.AdamW)(self)
        for parameter, gradient, group in matrices:
            parameter.grad = gradient
            if gradient is not None:
                self._update(parameter, gradient, group)
        return loss

    def _update(
        self, parameter: torch.Tensor, gradient: torch.Tensor, group: dict[str, Any]
    ) -> None:
        state = self.state[parameter]
        if not state:
            state["step"] = torch.zeros(())  # AdamW expects it in the state of every parameter
            state["momentum"] = torch.zeros_like(gradient)
        direction = state["momentum"].lerp_(gradient, 1.0 - self.momentum)
        if self.nesterov:
            direction = gradient.lerp(direction, self.momentum)
        matrix = orthogonalise(direction.flatten(1))
        scale = 0.2 * math.sqrt(max(matrix.shape))
        parameter.mul_(1.0 - group["lr"] * group["weight_decay"])
        parameter.add_(matrix.view(parameter.shape), alpha=-group["lr"] * scale)


def orthogonalise(matrix: torch.Tensor, iterations: int = 5) -> torch.Tensor:
    """Return about the nearest matrix with orthonormal rows or columns: singular values near 1.

    The quintic Newton-Schulz iteration with the coefficients of Muon's author,

        X <- (a + b G + c G G) X,  G = X X^T,

    on the small square matrices only: the factors commute, so their product and the next G follow
    from the last G, and X itself, which may be many times as long, is multiplied once. The rounding
    of G would grow in half precision; on a CPU float32 is faster anyway.

    Args:
        matrix: (rows, columns).
        iterations: five bring the singular values into about [0.7, 1.2].
    """
    a, b, c = 3.4445, -4.7750, 2.0315
    tall = matrix.shape[0] > matrix.shape[1]
    wide = (torch.t(matrix) if tall else matrix).to(
        torch.promote_types(matrix.dtype, torch.float32)
    )
    wide = wide / (wide.norm() + 1e-7)
    gram = wide @ torch.t(wide)
    product = torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
    for _ in range(iterations):
        factor = torch.addmm(gram, gram, gram, beta=b, alpha=c)
        factor.diagonal().add_(a)
        product = factor @ product
        gram = factor @ gram @ factor
    result = (product @ wide).to(matrix.dtype)
    return torch.t(result) if tall else result
