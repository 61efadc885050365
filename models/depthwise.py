"""Depthwise convolutions with a backward pass that is fast on a CPU too."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn
from torch.nn.grad import conv2d_input, conv2d_weight

_PIECE = 3
"""the largest kernel with a fast weight gradient"""


class DepthwiseConv2d(nn.Conv2d):
    """A convolution of each channel by itself: `nn.Conv2d` with as many groups as channels.

    Its output has the bits of `nn.Conv2d`. On a CPU oneDNN 3.x computes some gradients of such
    convolutions by kernels for dense ones, up to a hundred times slower than they could be: those
    of weights of 5 x 5 and larger, and in bfloat16 those of the input at a stride of 2. These are
    put together from kernels that are fast, at the usual accuracy.

    Args:
        channels: of input and output.
        kernel_size: odd; of both sides.
    """

    def __init__(self, channels: int, kernel_size: int, *, stride: int = 1, padding: int) -> None:
        super().__init__(
            channels, channels, kernel_size, stride, padding, groups=channels, bias=False
        )

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Convolve each channel: (n, channels, height, width)."""
        if images.device.type != "cpu" or torch.compiler.is_compiling():
            return super().forward(images)
        if not (torch.is_grad_enabled() and (images.requires_grad or self.weight.requires_grad)):
            return super().forward(images)
        weight = self.weight
        if torch.is_autocast_enabled("cpu"):
            dtype = torch.get_autocast_dtype("cpu")
            images, weight = images.to(dtype), weight.to(dtype)
        result: torch.Tensor = _Depthwise.apply(  # type: ignore[no-untyped-call]
            images, weight, self.stride[0], self.padding[0]
        )
        return result


class _Depthwise(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, images: torch.Tensor, weight: torch.Tensor, stride: int, padding: int
    ) -> torch.Tensor:
        ctx.save_for_backward(images if ctx.needs_input_grad[1] else None, weight)
        ctx.size, ctx.stride, ctx.padding = images.shape, stride, padding
        return F.conv2d(images, weight, None, stride, padding, groups=len(weight))

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        images, weight = ctx.saved_tensors
        for_images = for_weight = None
        if ctx.needs_input_grad[0]:
            for_images = _input_gradient(gradient, weight, ctx.size, ctx.stride, ctx.padding)
        if ctx.needs_input_grad[1]:
            for_weight = _weight_gradient(gradient, images, weight, ctx.stride, ctx.padding)
        return for_images, for_weight, None, None


def _input_gradient(
    gradient: torch.Tensor, weight: torch.Tensor, size: torch.Size, stride: int, padding: int
) -> torch.Tensor:
    if stride == 1:  # the convolution with the mirrored kernel
        mirrored = weight.flip(2, 3)
        outer = weight.shape[-1] - 1 - padding
        return F.conv2d(gradient, mirrored, None, 1, outer, groups=len(weight))
    dtype = gradient.dtype
    if dtype.itemsize < torch.float32.itemsize:
        weight, gradient = weight.float(), gradient.float()
    groups = len(weight)
    found: torch.Tensor = conv2d_input(  # type: ignore[no-untyped-call]
        size, weight, gradient, stride, padding, groups=groups
    )
    return found.to(dtype)


def _weight_gradient(
    gradient: torch.Tensor, images: torch.Tensor, weight: torch.Tensor, stride: int, padding: int
) -> torch.Tensor:
    side = weight.shape[-1]
    if side <= _PIECE:
        return _native_weight_gradient(images, weight.shape, gradient, stride, padding)
    padded = F.pad(images, (padding,) * 4)
    height, width = ((steps - 1) * stride + _PIECE for steps in gradient.shape[-2:])
    found = torch.empty_like(weight)
    corner = torch.Size((len(weight), 1, _PIECE, _PIECE))
    for top in range(0, side - _PIECE + 1, _PIECE - 1):
        for left in range(0, side - _PIECE + 1, _PIECE - 1):
            piece = padded[:, :, top : top + height, left : left + width]
            found[:, :, top : top + _PIECE, left : left + _PIECE] = _native_weight_gradient(
                piece, corner, gradient, stride, 0
            )
    return found


def _native_weight_gradient(
    images: torch.Tensor, size: torch.Size, gradient: torch.Tensor, stride: int, padding: int
) -> torch.Tensor:
    found: torch.Tensor = conv2d_weight(  # type: ignore[no-untyped-call]
        images, size, gradient, stride, padding, groups=size[0]
    )
    return found
