"""Lay tensors of any types out in one buffer of bytes, any piece of which can be added and sent."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import torch

TYPE_ALIGNMENT_BYTES = 512
"""from a multiple of which each type begins, like a tensor by itself: kernels may depend on it"""
TENSOR_ALIGNMENT_BYTES = 16
"""from a multiple of which each tensor begins: so many bytes a GPU's kernels load at a time"""
UNIT_BYTES = 64
"""in multiples of which a buffer may be cut: whole elements of any type"""


@dataclass(frozen=True)
class _Region:
    """Where the tensors of one type lie, in bytes, and which they are, each with a gap behind it.

    Args:
        sizes: of each tensor and of the gap behind it, if there is one, in elements.
        places: of each tensor among `sizes`.
        gaps: those of the gaps.
    """

    dtype: torch.dtype
    begin: int
    end: int
    numbers: list[int]
    sizes: list[int]
    places: list[int]
    gaps: list[int]

    def split(self, buffer: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return the vectors of the tensors and the gaps."""
        return torch.split(buffer[self.begin : self.end].view(self.dtype), self.sizes)


class BufferLayout:
    """Where tensors lie in a buffer: by their types, those of wide elements first.

    What lies between them is zero, and stays so when buffers are added.

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
        groups: dict[torch.dtype, list[int]] = {}
        for number, tensor in enumerate(tensors):
            groups.setdefault(tensor.dtype, []).append(number)
        self._regions: list[_Region] = []
        self.size_bytes = 0
        dtypes = sorted(groups, key=lambda one: one.itemsize, reverse=True)
        for dtype in dtypes:
            is_last = dtype == dtypes[-1]
            alignment = UNIT_BYTES if is_last else TYPE_ALIGNMENT_BYTES
            sizes = [tensors[number].numel() for number in groups[dtype]]
            self._add_region(dtype, groups[dtype], sizes, alignment)

    def _add_region(
        self, dtype: torch.dtype, numbers: list[int], sizes: list[int], alignment: int
    ) -> None:
        """Lay out the tensors of a type, and end at a multiple of `alignment` bytes."""
        region = _Region(dtype, self.size_bytes, 0, numbers, [], [], [])
        place = self.size_bytes
        for number, size in zip(numbers, sizes, strict=True):
            self.begins[number], self.ends[number] = place, place + size * dtype.itemsize
            is_last = number == numbers[-1]
            place = _round_up(self.ends[number], alignment if is_last else TENSOR_ALIGNMENT_BYTES)
            region.places.append(len(region.sizes))
            region.sizes.append(size)
            if gap := (place - self.ends[number]) // dtype.itemsize:
                region.gaps.append(len(region.sizes))
                region.sizes.append(gap)
        self._regions.append(dataclasses.replace(region, end=place))
        self.size_bytes = place

    def allocate(self) -> torch.Tensor:
        """Return a new buffer, uint8 (size_bytes,), of which only the gaps are filled."""
        buffer = self._allocate()
        for region in self._regions:
            pieces = region.split(buffer)
            if region.gaps:
                torch._foreach_zero_([pieces[place] for place in region.gaps])
        return buffer

    def _allocate(self) -> torch.Tensor:
        return torch.empty(self.size_bytes, dtype=torch.uint8, device=self.device)

    def pack(self, tensors: Sequence[torch.Tensor]) -> torch.Tensor:
        """Copy tensors into a new buffer."""
        buffer = self._allocate()
        zeros = torch.zeros(TYPE_ALIGNMENT_BYTES, dtype=torch.uint8, device=self.device)
        for region in self._regions:
            flat = [tensors[number].reshape(-1) for number in region.numbers]
            for place in region.gaps:
                flat.insert(place, zeros.view(region.dtype)[: region.sizes[place]])
            torch.cat(flat, out=buffer[region.begin : region.end].view(region.dtype))
        return buffer

    def views(self, buffer: torch.Tensor) -> list[torch.Tensor]:
        """Return the tensors that lie in a buffer."""
        views: dict[int, torch.Tensor] = {}
        for region in self._regions:
            pieces = region.split(buffer)
            views |= zip(region.numbers, map(pieces.__getitem__, region.places), strict=True)
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
