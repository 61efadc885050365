"""How much memory a process may fill with images: of a container, a batch job or the machine."""

from __future__ import annotations

import os

from trainer.ranks import processes
from trainer.ranks.cgroups import available_memory_bytes, available_swap_bytes

SHARE = 0.5
"""of what is free at the start: the rest is for the network, its gradients and the system"""


def image_limit_bytes(limit_mb: int | None) -> int:
    """Return how many bytes of images a process may keep in memory.

    Args:
        limit_mb: data.memory_limit_mb; None: a share of what is free for this process, one of
            several on its machine, by its control group and by Slurm, which does not always
            enforce what it has promised.
    """
    if limit_mb is not None:
        return limit_mb * 10**6
    available_bytes = available_memory_bytes()
    promised_bytes = _slurm_bytes()
    if promised_bytes is not None:
        available_bytes = min(available_bytes, promised_bytes)
    return int(SHARE * available_bytes / processes.local_count())


def free_bytes() -> int:
    """Return how much the processes of this machine can still take without one being killed."""
    return available_memory_bytes() + available_swap_bytes()


def _slurm_bytes() -> int | None:
    """Return the memory of a Slurm job on this machine; None if this is none, or has no limit."""
    per_node, per_core = (_slurm_mb(f"SLURM_MEM_PER_{unit}") for unit in ("NODE", "CPU"))
    if per_node:
        return per_node * 2**20
    cores = _slurm_mb("SLURM_CPUS_ON_NODE")
    return per_core * cores * 2**20 if per_core and cores else None


def _slurm_mb(variable: str) -> int:
    value = os.environ.get(variable, "")
    return int(value) if value.isdecimal() else 0  # 0 means all of it
