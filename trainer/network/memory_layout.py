"""The memory layout of a model's filters, which decides which kernels are used."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from trainer.base.errors import UserError
from trainer.network import model_state

_VECTOR_NUMBERS = 8
"""of float32, that AVX2 computes with at once"""


def describe_layout(model: nn.Module) -> str:
    """Return the memory layout of the filters in words."""
    filters = [parameter for parameter in model.parameters() if parameter.ndim == 4]
    last = [weight.is_contiguous(memory_format=torch.channels_last) for weight in filters]
    # Filters of one channel or one pixel fit both layouts.
    plain = [weight.is_contiguous() for weight in filters]
    return "channels_last" if all(last) and not all(plain) else "contiguous"


def choose_layout(
    model: nn.Module, wanted: str, check: Callable[[nn.Module], object]
) -> torch.memory_format:
    """Set the layout in which convolutions are faster: benchmarks/results/kernels.md.

    But a model that calls view() on their output, or on its gradient, cannot use channels_last, nor
    can one for which oneDNN has no kernel that is sound. The CPU decides for a GPU as well: it is
    where a model is tried, and a trained one is used, and such a convolution is rare.

    Args:
        model: a trial build.
        check: raises a ValueError if the model fails.

    Returns:
        What the model has now.

    Raises:
        UserError: channels_last is wanted, and the model fails with it.
    """
    if wanted == "contiguous":
        return torch.preserve_format
    if name := _unsound_convolution(model):
        if wanted == "channels_last":
            raise UserError(
                f"train.memory_format: the model cannot use channels_last: in the backward pass of "
                f"{name}, whose filters of one pixel have a stride and fewer than "
                f"{_VECTOR_NUMBERS} channels, AVX2 kernels write beyond their memory; use auto or "
                f"contiguous"
            )
        set_layout(model, torch.contiguous_format)
        return torch.contiguous_format
    set_layout(model, torch.channels_last)
    try:
        check(model)
    except ValueError as error:
        if wanted == "channels_last":
            raise UserError(
                f"train.memory_format: the model cannot use channels_last ({error}); use auto or "
                f"contiguous, or reshape() instead of view()"
            ) from error
        set_layout(model, torch.contiguous_format)
        return torch.contiguous_format
    return torch.channels_last


def _unsound_convolution(model: nn.Module) -> str | None:
    """Return the name of a convolution whose backward pass damages memory, if there is one.

    That is oneDNN's with AVX2, which portable kernels have too, in channels_last:
    https://github.com/uxlfoundation/oneDNN/issues/6035.
    """
    if torch.backends.cpu.get_cpu_capability() != "AVX2":
        return None
    name: str
    for name, module in model.named_modules():
        if (
            isinstance(module, nn.Conv2d)
            and module.in_channels // module.groups < _VECTOR_NUMBERS
            and set(module.kernel_size) == {1}
            and max(module.stride) > 1
        ):
            return name
    return None


def set_layout(model: nn.Module, layout: torch.memory_format) -> None:
    """Change the memory layout of filters and of their images."""
    # As `model.to(memory_format=layout)`, which fails if a filter has five dimensions.

    def change(tensor: torch.Tensor) -> torch.Tensor:
        return tensor.to(memory_format=layout) if tensor.ndim == 4 else tensor

    with model_state.keep_shared_buffers(model):
        model._apply(change)  # type: ignore[no-untyped-call]
