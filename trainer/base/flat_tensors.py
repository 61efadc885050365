"""Pack many tensors into a few vectors, which are copied and added faster."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch

Tensors = Sequence[torch.Tensor]
Layout = list[tuple[torch.dtype, torch.Size]]


def pack(tensors: Tensors) -> list[torch.Tensor]:
    """Pack tensors into one vector for each dtype, as a conversion could round."""
    groups: dict[torch.dtype, list[torch.Tensor]] = {}
    for tensor in tensors:
        groups.setdefault(tensor.dtype, []).append(tensor.reshape(-1))
    return [torch.cat(group) for group in groups.values()]


def layout(tensors: Tensors) -> Layout:
    """Return what `unpack` has to know about packed tensors."""
    return [(tensor.dtype, tensor.shape) for tensor in tensors]


def unpack(vectors: Tensors, packed: Layout) -> list[torch.Tensor]:
    """Undo `pack`: return views into the vectors."""
    sizes: dict[torch.dtype, list[int]] = {}
    for dtype, shape in packed:
        sizes.setdefault(dtype, []).append(shape.numel())
    pieces = {vector.dtype: iter(torch.split(vector, sizes[vector.dtype])) for vector in vectors}
    return [next(pieces[dtype]).view(shape) for dtype, shape in packed]


def group_by_type(*lists: Tensors) -> Iterable[tuple[list[torch.Tensor], ...]]:
    """Divide lists of tensors alike, so that those of each part have one dtype and device.

    Torch's operations on lists of several types compute one tensor after the other.
    """
    groups: dict[object, tuple[list[torch.Tensor], ...]] = {}
    for row in zip(*lists, strict=True):
        key = tuple((tensor.dtype, tensor.device) for tensor in row)
        group = groups.setdefault(key, tuple([] for _ in row))
        for part, tensor in zip(group, row, strict=True):
            part.append(tensor)
    return groups.values()


def copy_all(targets: Tensors, sources: Tensors) -> None:
    """Copy the values of tensors to others of the same shapes, in one call for each dtype."""
    for into, values in group_by_type(targets, sources):
        torch._foreach_copy_(into, values)


def memory_order(tensor: torch.Tensor) -> list[int]:
    """Return the dimensions from the largest step in memory to the smallest.

    Permuted so, a tensor without gaps is contiguous, and packing it copies in one piece.
    """
    return sorted(range(tensor.ndim), key=tensor.stride, reverse=True)


def invert_permutation(order: Sequence[int]) -> list[int]:
    """Return the permutation that undoes `order`."""
    return sorted(range(len(order)), key=order.__getitem__)
