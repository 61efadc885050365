"""Optimisers and their parameter groups."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import nn
from torch.optim.adam import adam

from trainer.config import plugins
from trainer.config.schema import OptimizerConfig
from trainer.training import user_optimizer

Kind = TypeVar("Kind", bound=torch.optim.Optimizer)


def build(config: OptimizerConfig, model: nn.Module) -> torch.optim.Optimizer:
    """The optimiser over the model's trainable parameters.

    Parameters of fewer than two dimensions (biases, norms) are not decayed. Adam's kernels are
    fused; SGD's fails where a parameter gets its first gradient after the first step.

    Raises:
        UserError: an optimiser of the user's own is not what it has to be.
    """
    _leave_compiler_alone()
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    weights = [parameter for parameter in parameters if parameter.ndim >= 2]
    vectors = [parameter for parameter in parameters if parameter.ndim < 2]
    decayed = {"params": weights, "weight_decay": config.weight_decay}
    groups: list[dict[str, Any]] = [decayed, {"params": vectors, "weight_decay": 0.0}]
    if config.name not in plugins.BUILT_IN["optimizer"]:
        return user_optimizer.build(config, groups)
    if not config.weight_decay and config.name != "muon":  # each group is a call of the kernels
        groups = [{"params": parameters}]
    momentum = config.momentum
    match config.name:
        case "sgd":
            nesterov = config.nesterov and momentum > 0
            return _eager(torch.optim.SGD)(
                groups, config.lr, momentum=momentum, nesterov=nesterov, foreach=True
            )
        case "adam":
            return Adam(groups, config.lr, decoupled=False)
        case "adamw":
            return Adam(groups, config.lr, decoupled=True)
        case "rmsprop":
            return _eager(torch.optim.RMSprop)(groups, config.lr, momentum=momentum, foreach=True)
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
    raise AssertionError(config.name)


def _leave_compiler_alone() -> None:
    """Do without the import of torch's compiler, which takes half as long as that of torch.

    Torch's wrapper around these methods imports it to keep them out of what is compiled, where it
    does not find that done. Nothing compiles an optimiser here. A torch that does it otherwise is
    as slow as ever.
    """
    kind = torch.optim.Optimizer
    for method in (kind.add_param_group, kind.zero_grad, kind.state_dict, kind.load_state_dict):
        function = getattr(method, "__wrapped__", None)
        if function is not None and not hasattr(function, "__dynamo_disable"):
            setattr(function, "__dynamo_disable", function)


def _eager(kind: type[Kind]) -> type[Kind]:
    """An optimiser whose `step` has no wrapper, which would import the compiler as well."""
    return type(kind.__name__, (kind,), {"step": torch.no_grad()(inspect.unwrap(kind.step))})


class Adam(torch.optim.Optimizer):
    """Adam (Kingma, Ba, 2015), or AdamW (Loshchilov, Hutter, 2019), with betas 0.9 and 0.999.

    By the kernel of torch's own fused one, which takes half as long again to get there: 1 % of a
    step of a small net.

    Args:
        params: groups.
        decoupled: AdamW.
        more: defaults of a subclass.
    """

    def __init__(
        self, params: list[dict[str, Any]], lr: float, *, decoupled: bool, **more: Any
    ) -> None:
        defaults = {
            "lr": lr, "weight_decay": 0.0, "decoupled": decoupled, "betas": (0.9, 0.999),
            "eps": 1e-8,
            "fused": True,  # by which loading a state takes the steps to the parameters' device
        }  # fmt: skip
        super().__init__(params, defaults | more)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Update every parameter that has a gradient."""
        loss = None if closure is None else torch.enable_grad()(closure)()
        for group in self.param_groups:
            parameters = [p for p in group["params"] if p.grad is not None]
            if parameters:
                self._update(parameters, group)
        return loss

    # So that torch does not wrap it for its profiler and for hooks, which nobody has here.
    step.hooked = True  # type: ignore[attr-defined]

    def _update(self, parameters: list[torch.Tensor], group: dict[str, Any]) -> None:
        states = [self.state[parameter] for parameter in parameters]
        for parameter, state in zip(parameters, states, strict=True):
            if not state:
                state["step"] = torch.zeros((), device=parameter.device)
                state["mean"] = torch.zeros_like(parameter)
                state["square"] = torch.zeros_like(parameter)
        first, second = group["betas"]
        adam(
            parameters,
            [p.grad for p in parameters if p.grad is not None],
            [state["mean"] for state in states],
            [state["square"] for state in states],
            [],
            [state["step"] for state in states],
            fused=True, amsgrad=False, beta1=first, beta2=second, lr=group["lr"],
            weight_decay=group["weight_decay"], eps=group["eps"], maximize=False,
            decoupled_weight_decay=group["decoupled"],
        )  # fmt: skip


class Muon(Adam):
    """Muon for groups with `muon: True`, AdamW for the others, at one learning rate for both.

    Muon (Jordan et al., https://kellerjordan.github.io/posts/muon, 2024) replaces the momentum of
    a matrix by the nearest orthogonal one; a filter bank is taken as the matrix (filters, inputs x
    height x width). The update is scaled to the root mean square that AdamW's has, so that one
    learning rate and one weight decay serve both (Liu et al., Muon is Scalable for LLM Training,
    arXiv 2502.16982, section 2.2).
    """

    def __init__(
        self, params: list[dict[str, Any]], lr: float, *, momentum: float, nesterov: bool
    ) -> None:
        more = {"muon": False, "momentum": momentum, "nesterov": nesterov}
        super().__init__(params, lr, decoupled=True, **more)

    def _update(self, parameters: list[torch.Tensor], group: dict[str, Any]) -> None:
        if not group["muon"]:
            super()._update(parameters, group)
            return
        for parameter in parameters:
            gradient, state = parameter.grad, self.state[parameter]
            assert gradient is not None
            if not state:
                state["momentum"] = torch.zeros_like(gradient)
            direction = state["momentum"].lerp_(gradient, 1.0 - group["momentum"])
            if group["nesterov"]:
                direction = gradient.lerp(direction, group["momentum"])
            matrix = orthogonalise(direction.flatten(1))
            scale = 0.2 * math.sqrt(max(matrix.shape))
            parameter.mul_(1.0 - group["lr"] * group["weight_decay"])
            parameter.add_(matrix.view(parameter.shape), alpha=-group["lr"] * scale)


def orthogonalise(matrix: torch.Tensor, iterations: int = 5) -> torch.Tensor:
    """About the nearest matrix with orthonormal rows or columns: singular values near 1.

    The quintic Newton-Schulz iteration with the coefficients of Muon's author,

        X <- (a + b G + c G G) X,  G = X X^T,

    on the small square matrices alone: the factors commute, so their product and the next G follow
    from the last G, and X itself, which may be many times as long, is multiplied once. The rounding
    of G would grow in half precision; on a CPU float32 is the faster one anyway.

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
