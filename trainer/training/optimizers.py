"""Lockstep's own optimisers; those of libraries and users are in `other_optimizers`."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from trainer.base.errors import UserError
from trainer.base.flat_tensors import memory_order
from trainer.config.schema import OptimizerConfig
from trainer.training import other_optimizers
from trainer.training.compiler_import import plain_step, skip_compiler_import
from trainer.training.parameter_groups import parameter_groups
from trainer.training.scaled_gradients import leave_out_overflow

_SGD_STEP = plain_step(torch.optim.SGD)
_RMSPROP_STEP = plain_step(torch.optim.RMSprop)
_ADAMW_STEP = plain_step(torch.optim.AdamW)


def build(
    config: OptimizerConfig, model: nn.Module, num_classes: int, *, portable: bool = False
) -> torch.optim.Optimizer:
    """Build the optimiser over the parameters that require a gradient.

    Adam and AdamW use torch's fused kernels, which round alike on every CPU; the fused kernel of
    SGD fails if a parameter gets its first gradient after the first step.

    Args:
        num_classes: by which the head is known, where `optimizer.groups` or `optimizer.layer_decay`
            ask for it.
        portable: whether every processor has to give the same bits: train.kernels.

    Raises:
        UserError: names the key of what is wrong with the groups, the arguments or an optimiser
            that is not Lockstep's.
    """
    groups = parameter_groups(config, model, num_classes)
    momentum = {"momentum": config.momentum}
    # Torch refuses Nesterov's momentum where there is none.
    nesterov = {"nesterov": config.nesterov and config.args.get("momentum", config.momentum) != 0}
    kinds: dict[str, tuple[type[torch.optim.Optimizer], dict[str, Any]]] = {
        "sgd": (SGD, momentum | nesterov | {"foreach": True}),
        "adam": (Adam, {"fused": True}),
        "adamw": (AdamW, {"fused": True}),
        "rmsprop": (RMSprop, momentum | {"foreach": True}),
        "muon": (Muon, momentum | {"nesterov": config.nesterov}),
    }
    if config.name not in kinds:
        return other_optimizers.build(config, groups, portable=portable)
    kind, arguments = kinds[config.name]
    try:
        return skip_compiler_import(kind)(groups, config.lr, **arguments | config.args)  # type: ignore[arg-type]
    except (TypeError, ValueError) as error:
        raise UserError(f"optimizer.args: {config.name} refuses {config.args}: {error}") from error


class SGD(torch.optim.SGD):
    """Torch's, which leaves a step of fp16 that overflows out without waiting for the device."""

    @property
    def _step_supports_amp_scaling(self) -> bool:
        """Whether the next step can be left out on the device, as GradScaler asks before each.

        With dampening the first momentum is the gradient, and no momentum of zero leads to that: so
        the host waits, and leaves the step out, as long as a momentum is missing.
        """
        return all(
            parameter.grad is None or "momentum_buffer" in self.state.get(parameter, ())
            for group in self.param_groups
            if group["momentum"] and group["dampening"]
            for parameter in group["params"]
        )

    @_step_supports_amp_scaling.setter
    def _step_supports_amp_scaling(self, value: bool) -> None:
        """Leave it at that where torch sets it, for its fused kernel."""

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Update every parameter that has a gradient."""
        return _step_on_device(self, _SGD_STEP, closure)


class RMSprop(torch.optim.RMSprop):
    """Torch's, as `SGD`."""

    _step_supports_amp_scaling = True

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Update every parameter that has a gradient."""
        return _step_on_device(self, _RMSPROP_STEP, closure)


def _step_on_device(
    optimizer: torch.optim.Optimizer,
    step: Callable[..., Any],
    closure: Callable[[], float] | None,
) -> float | None:
    parameters = [one for group in optimizer.param_groups for one in group["params"]]
    with leave_out_overflow(optimizer, parameters):
        loss: float | None = step(optimizer, closure)
    return loss


class Adam(torch.optim.Adam):
    """Torch's, whose fused kernel sees each tensor in the order of its memory.

    It is for contiguous tensors: of others, such as weights in channels_last, it makes copies in
    each step.
    """

    def _init_group(self, group: dict[str, Any], *columns: list[Any]) -> bool:
        """Fill the columns with the parameters, their gradients, their state and their steps."""
        has_complex: bool = super()._init_group(group, *columns)  # type: ignore[no-untyped-call]
        parameters = columns[0]
        for number, parameter in enumerate(parameters):
            if not parameter.is_contiguous():
                order = memory_order(parameter)
                for column in columns[:-1]:
                    if column:  # one is for `amsgrad` alone
                        column[number] = column[number].permute(order)
        return has_complex


class AdamW(Adam, torch.optim.AdamW):
    """Torch's, as `Adam`."""


class Muon(AdamW):
    """Muon for groups with `muon: True`, AdamW for the others, with one learning rate for both.

    Muon (Jordan et al., https://kellerjordan.github.io/posts/muon, 2024) replaces the momentum of
    a matrix by the nearest orthogonal one; a filter bank is treated as the matrix (filters, inputs
    x height x width). The update is scaled to the root mean square of AdamW's, so that one learning
    rate and one weight decay serve both (Liu et al., Muon is Scalable for LLM Training,
    arXiv 2502.16982, section 2.2).
    """

    def __init__(
        self,
        params: list[dict[str, Any]],
        lr: float,
        *,
        momentum: float,
        nesterov: bool,
        **of_adamw: Any,
    ) -> None:
        super().__init__(params, lr, fused=True, **of_adamw)
        self.momentum = momentum
        self.nesterov = nesterov

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
        _ADAMW_STEP(self)
        for parameter, gradient, _ in matrices:
            parameter.grad = gradient
        # What torch's fused AdamW does by itself.
        with leave_out_overflow(self, [parameter for parameter, _, _ in matrices]):
            for parameter, gradient, group in matrices:
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
