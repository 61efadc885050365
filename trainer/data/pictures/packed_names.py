"""Names of a million pictures in two arrays, instead of a million objects."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import overload

import numpy as np
import numpy.typing as npt

Indices = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class PackedNames(Sequence[str]):
    """Names in UTF-8, one after the other; a name becomes a `str` when it is asked for.

    Args:
        blob: the bytes of all names, uint8.
        ends: where each name ends in `blob`, int64.
        order: which of them these are, int64 (n,); None: all, in their order.
    """

    blob: npt.NDArray[np.uint8]
    ends: npt.NDArray[np.int64]
    order: Indices | None = None

    def __len__(self) -> int:
        return len(self.ends if self.order is None else self.order)

    @overload
    def __getitem__(self, position: int) -> str: ...

    @overload
    def __getitem__(self, position: slice) -> PackedNames: ...

    def __getitem__(self, position: int | slice) -> str | PackedNames:
        if isinstance(position, slice):
            return self.select(np.arange(len(self), dtype=np.int64)[position])
        if self.order is not None:
            position = int(self.order[position])
        elif position < 0:
            position += len(self)
        begin = self.ends[position - 1] if position else 0
        return self.blob[begin : self.ends[position]].tobytes().decode()

    def __iter__(self) -> Iterator[str]:
        return map(bytes.decode, self.encode())

    def encode(self) -> Iterator[bytes]:
        """Yield each name in UTF-8."""
        begins = np.concatenate([[0], self.ends])[:-1]
        content, ends = self.blob.tobytes(), self.ends
        if self.order is not None:
            begins, ends = begins[self.order], ends[self.order]
        for begin, end in zip(begins.tolist(), ends.tolist(), strict=True):
            yield content[begin:end]

    def select(self, positions: Indices) -> PackedNames:
        """Return some of the names, in this order, without copying any."""
        return replace(self, order=positions if self.order is None else self.order[positions])


def pack(names: Sequence[str]) -> PackedNames:
    """Put names into arrays; packed ones that are in their order stay what they are."""
    if isinstance(names, PackedNames) and names.order is None:
        return names
    encoded = list(encode(names))
    ends = np.cumsum(np.fromiter(map(len, encoded), np.int64, len(encoded)), dtype=np.int64)
    return PackedNames(np.frombuffer(b"".join(encoded), np.uint8), ends)


def join(several: Sequence[PackedNames]) -> PackedNames:
    """Return all names, one sequence after the other; each must be in the order of its arrays."""
    assert all(names.order is None for names in several)
    begins = np.cumsum([0, *(len(names.blob) for names in several)])
    ends = [names.ends + begin for names, begin in zip(several, begins.tolist(), strict=False)]
    return PackedNames(np.concatenate([names.blob for names in several]), np.concatenate(ends))


def encode(names: Sequence[str]) -> Iterator[bytes]:
    """Return each name in UTF-8; of packed ones without making a `str` of it."""
    return names.encode() if isinstance(names, PackedNames) else map(str.encode, names)


def select(names: Sequence[str], positions: Indices) -> Sequence[str]:
    """Return some names, in this order; of packed ones without making each a `str`."""
    if isinstance(names, PackedNames):
        return names.select(positions)
    return [names[position] for position in positions.tolist()]
