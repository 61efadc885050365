"""Lend tensors memory that earlier tensors have used.

The system hands out memory of many megabytes page by page, cleared: for the scaled images of a
batch this takes longer than to scale them.
"""

from __future__ import annotations

import weakref

import numpy as np
import numpy.typing as npt
import torch

_LEAST_BYTES = 2**20
"""that are worth it: smaller pieces are kept by the allocator itself"""
_MOST_FREE = 2
"""pieces of memory that wait to be lent"""


class ReusedMemory:
    """Memory of the CPU for tensors of similar sizes; threads may share it."""

    def __init__(self) -> None:
        self._free: list[npt.NDArray[np.uint8]] = []

    def empty_like(self, images: torch.Tensor) -> torch.Tensor:
        """Return what `torch.empty_like` does, as float32, in memory that nothing uses any more.

        It is lent again once no tensor shares it, however many views of it there were.

        Args:
            images: of any dtype, on the CPU.
        """
        size_bytes = 4 * images.numel()
        if size_bytes < _LEAST_BYTES:
            return torch.empty_like(images, dtype=torch.float32)
        lent = self._take(size_bytes)[:size_bytes].view(np.float32)
        # A tensor made of an array keeps that array, and so ends it.
        assert isinstance(lent.base, np.ndarray)
        weakref.finalize(lent, self._take_back, lent.base).atexit = False
        strides = torch.empty_like(images, device="meta").stride()
        return torch.from_numpy(lent).as_strided(images.shape, strides)

    def _take(self, size_bytes: int) -> npt.NDArray[np.uint8]:
        try:
            memory = self._free.pop()
        except IndexError:
            memory = np.empty(0, dtype=np.uint8)
        if memory.nbytes >= size_bytes:
            return memory
        # Aligned as torch wants it.
        found: npt.NDArray[np.uint8] = torch.empty(size_bytes, dtype=torch.uint8).numpy()
        return found

    def _take_back(self, memory: npt.NDArray[np.uint8]) -> None:
        if len(self._free) < _MOST_FREE:
            self._free.append(memory)
