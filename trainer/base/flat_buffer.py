"""Lay tensors of any types out in one buffer of bytes, any piece of which can be added and sent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

TYPE_ALIGNMENT_BYTES = 512
"""from a multiple of which each type begins, like a tensor by itself: kernels may depend on it"""
UNIT_BYTES = 64
"""in multiples of which a buffer may be cut: whole elements of any type"""


@dataclass(frozen=True)
class _Region:
    """Where the tensors of one type lie, in bytes, and which they are."""

    dtype: torch.dtype
    begin: int
    end: int
    numbers: list[int]


class BufferLayout:
    """Where tensors lie in a buffer: by their types, those of wide elements first.

    Args:
        tensors: of the types, shapes and device of those that are packed later.

    Attributes:
        size_bytes: of a buffer, a multiple of `UNIT_BYTES`.
        begins: where each tensor begins, in bytes.
        ends: where it ends.
    """

    def __init__(self, tensors: Sequence[torch.Tensor]) -> None:
        self.device = tensors[0].device
        self.shapes = [tensor.shape for tensor in tensors]
        self.begins, self.ends = [0] * len(tensors), [0] * len(tensors)
        self._sizes = [tensor.numel() for tensor in tensors]
        groups: dict[torch.dtype, list[int]] = {}
        for number, tensor in enumerate(tensors):
            groups.setdefault(tensor.dtype, []).append(number)
        self._regions: list[_Region] = []
        place = 0
        for dtype in sorted(groups, key=lambda one: one.itemsize, reverse=True):
            begin = place = _round_up(place, TYPE_ALIGNMENT_BYTES)
            for number in groups[dtype]:
                self.begins[number] = place
                place += self._sizes[number] * dtype.itemsize
                self.ends[number] = place
            self._regions.append(_Region(dtype, begin, place, groups[dtype]))
        self.size_bytes = _round_up(place, UNIT_BYTES)

    def allocate(self) -> torch.Tensor:
        """Return a new buffer, uint8 (size_bytes,)."""
        return torch.empty(self.size_bytes, dtype=torch.uint8, device=self.device)

    def pack(self, tensors: Sequence[torch.Tensor]) -> torch.Tensor:
        """Copy tensors into a new buffer."""
        buffer = self.allocate()
        for region in self._regions:
            flat = [tensors[number].reshape(-1) for number in region.numbers]
            torch.cat(flat, out=buffer[region.begin : region.end].view(region.dtype))
        return buffer

    def views(self, buffer: torch.Tensor) -> list[torch.Tensor]:
        """Return the tensors that lie in a buffer."""
        views: dict[int, torch.Tensor] = {}
        for region in self._regions:
            whole = buffer[region.begin : region.end].view(region.dtype)
            pieces = torch.split(whole, [self._sizes[number] for number in region.numbers])
            views |= zip(region.numbers, pieces, strict=True)
        return [views[number].view(shape) for number, shape in enumerate(self.shapes)]

    def add_tensors(self, buffer: torch.Tensor, tensors: Sequence[torch.Tensor]) -> None:
        """Add tensors to those in a buffer."""
        views = self.views(buffer)
        for region in self._regions:
            mine = [views[number] for number in region.numbers]
            torch._foreach_add_(mine, [tensors[number] for number in region.numbers])

    def add(self, begin: int, piece: torch.Tensor, other: torch.Tensor) -> None:
        """Add one piece of a buffer to another in place.

        Args:
            begin: of both in their buffers, in bytes, a multiple of `UNIT_BYTES`.
            piece, other: uint8 (n,).
        """
        for region in self._regions:
            low, high = max(region.begin, begin), min(region.end, begin + len(piece))
            if low < high:
                part = slice(low - begin, high - begin)
                piece[part].view(region.dtype).add_(other[part].view(region.dtype))


def _round_up(size: int, multiple: int) -> int:
    return -(-size // multiple) * multiple
