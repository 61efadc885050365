"""Many tensors as a few vectors, which are added and sent faster."""

from __future__ import annotations

from collections.abc import Sequence

import torch

Tensors = Sequence[torch.Tensor]
Layout = list[tuple[torch.dtype, torch.Size]]


def pack(tensors: Tensors) -> list[torch.Tensor]:
    """One vector for each dtype: a conversion to a common one could round, or fill a memory."""
    groups: dict[torch.dtype, list[torch.Tensor]] = {}
    for tensor in tensors:
        groups.setdefault(tensor.dtype, []).append(tensor.reshape(-1))
    return [torch.cat(group) for group in groups.values()]


def layout(tensors: Tensors) -> Layout:
    """What `unpack` has to know about packed tensors."""
    return [(tensor.dtype, tensor.shape) for tensor in tensors]


def unpack(vectors: Tensors, packed: Layout) -> list[torch.Tensor]:
    """The inverse of `pack`: views into the vectors."""
    sizes: dict[torch.dtype, list[int]] = {}
    for dtype, shape in packed:
        sizes.setdefault(dtype, []).append(shape.numel())
    pieces = {vector.dtype: iter(torch.split(vector, sizes[vector.dtype])) for vector in vectors}
    return [next(pieces[dtype]).view(shape) for dtype, shape in packed]


def memory_order(tensor: torch.Tensor) -> list[int]:
    """The dimensions from the one with the largest step in memory to that with the smallest.

    Permuted so, a tensor without gaps is contiguous, and packing it moves nothing about.
    """
    return sorted(range(tensor.ndim), key=tensor.stride, reverse=True)


def invert_permutation(order: Sequence[int]) -> list[int]:
    """The permutation that undoes `order`."""
    return sorted(range(len(order)), key=order.__getitem__)
