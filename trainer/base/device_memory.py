"""The memory of a device, which several processes may share."""

from __future__ import annotations

import math
import platform
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch

MARGIN = 0.1
"""of a device's memory that images leave free beside what was measured"""


class DeviceMemory(Protocol):
    """The memory of a device that has its own, as one of its processes sees it."""

    @property
    def name(self) -> str:
        """The same for all processes that share it."""

    @property
    def total_bytes(self) -> int:
        """How much there is."""

    def free_bytes(self) -> int:
        """Return how much no process has taken."""

    def begin(self) -> None:
        """Give back what this process does not use, and forget the most that it had."""

    def end(self) -> int:
        """Give it back again; return how much more than now it had at most since `begin`."""


class GpuMemory:
    """The memory of a GPU of CUDA, which torch takes for itself piece by piece, and keeps."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        properties = torch.cuda.get_device_properties(device)
        self.name = f"{platform.node()}/{properties.uuid}"
        self.total_bytes = int(properties.total_memory)

    def free_bytes(self) -> int:
        """Return how much no process has taken."""
        return int(torch.cuda.mem_get_info(self.device)[0])

    def begin(self) -> None:
        """Give back what this process does not use, and forget the most that it had."""
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(self.device)

    def end(self) -> int:
        """Give it back again; return how much more than now it had at most since `begin`."""
        most_bytes = torch.cuda.max_memory_reserved(self.device)
        torch.cuda.empty_cache()
        return max(0, most_bytes - torch.cuda.memory_reserved(self.device))


def memory_of(device: torch.device) -> DeviceMemory | None:
    """Return the memory of a device; None where it is the host's, or cannot be measured."""
    return GpuMemory(device) if device.type == "cuda" else None


def peak_bytes(device: torch.device) -> int:
    """Return the most memory that this process has had: tensors of a GPU's, else all of its own.

    Of a GPU it is counted since the start of the training, else since that of the process.
    """
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    import psutil

    if sys.platform == "win32":
        return int(psutil.Process().memory_info().peak_wset)
    import resource

    unit_bytes = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit_bytes


def first_room(limit_gb: float | None, device: torch.device) -> float:
    """Return how many bytes of images a device may have before anything was measured.

    Args:
        limit_gb: data.device_memory_gb.
    """
    if limit_gb is not None:
        return 1e9 * limit_gb
    return 0.0 if device.type == "cuda" else math.inf


@dataclass(frozen=True)
class Need:
    """What a process needs of the memory of its device.

    Args:
        name: of the memory, the same for processes that share it.
        needed_bytes: beside what it has now; infinite where that did not suffice.
    """

    name: str
    total_bytes: int
    needed_bytes: float


def room_bytes(needs: Sequence[Need], free_bytes: Sequence[int], rank: int) -> float:
    """Return how much of its device's memory a rank may fill, as much as the others that share it.

    Args:
        needs: of each rank.
        free_bytes: of each rank's device, while all ranks hold what they have now.
    """
    own = needs[rank]
    shared = [number for number, need in enumerate(needs) if need.name == own.name]
    needed_bytes = math.fsum(needs[number].needed_bytes for number in shared)
    left_bytes = min(free_bytes[number] for number in shared) - needed_bytes
    return max(0.0, left_bytes - MARGIN * own.total_bytes) / len(shared)
