"""Leave a step whose scaled gradients overflow out, on the device: what fp16 asks an optimiser for.

A scaler multiplies the loss, so that small gradients do not vanish in half precision. Where some
overflow it leaves the optimiser's step out, for which the host has to wait for the device, unless
the optimiser says that it can do so by itself: torch's fused ones can, and by this any other one.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import torch

from trainer.base.flat_tensors import group_by_type


@contextlib.contextmanager
def leave_out_overflow(
    optimizer: torch.optim.Optimizer, parameters: Sequence[torch.Tensor]
) -> Iterator[None]:
    """Undo the step inside where a gradient has overflowed; without a scaler do nothing.

    State that the step makes is zero then, as if it had been made of gradients of zero.

    Args:
        optimizer: whose `grad_scale` and `found_inf` the scaler has set, as torch's `GradScaler`
            does for `_step_supports_amp_scaling`.
        parameters: that the step inside updates; those without a gradient do not matter.
    """
    attributes = vars(optimizer)
    found_inf: torch.Tensor | None = attributes.get("found_inf")
    if found_inf is None:
        yield
        return
    scale: torch.Tensor | None = attributes["grad_scale"]
    trained = [parameter for parameter in parameters if parameter.grad is not None]
    if scale is not None:
        for (gradients,) in group_by_type([p.grad for p in trained if p.grad is not None]):
            torch._foreach_mul_(gradients, scale.double().reciprocal().float())
    before = [
        (parameter.clone(), {name: one.clone() for name, one in _state(optimizer, parameter)})
        for parameter in trained
    ]
    # Steps that are not fused refuse them.
    del attributes["found_inf"], attributes["grad_scale"]
    try:
        yield
    finally:
        attributes |= {"found_inf": found_inf, "grad_scale": scale}
    overflowed = found_inf > 0
    for parameter, (value, state) in zip(trained, before, strict=True):
        parameter.copy_(torch.where(overflowed, value, parameter))
        for name, now in _state(optimizer, parameter):
            old = state[name] if name in state else torch.zeros_like(now)
            now.copy_(torch.where(overflowed, old, now))


def _state(
    optimizer: torch.optim.Optimizer, parameter: torch.Tensor
) -> list[tuple[str, torch.Tensor]]:
    """Return what is kept for a parameter on its device; counts on the CPU go on."""
    return [
        (name, value)
        for name, value in optimizer.state[parameter].items()
        if isinstance(value, torch.Tensor) and value.device == parameter.device
    ]
