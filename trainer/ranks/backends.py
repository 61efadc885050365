"""Agree on what connects the processes of several machines: NCCL or gloo.

Each machine sees its own GPUs only, and ranks that choose differently never form a group: each
waits for the others until its timeout.
"""

from __future__ import annotations

import functools
from datetime import timedelta
from typing import TYPE_CHECKING

from trainer.base.errors import UserError
from trainer.ranks import processes

if TYPE_CHECKING:
    from torch._C._distributed_c10d import Store

_CPU, _OWN_GPU, _SHARED_GPU = "CPU", "GPU", "shared GPU"

_KEY = "lockstep/backend/"

_stores: list[Store] = []
"""of agreements, to the end of the process: the store of rank 0 serves those who read later"""


def agree(*, cpu: bool, timeout: timedelta) -> str | None:
    """Return what connects the processes, the same on all ranks; a collective.

    Call it before the group is formed.

    Args:
        cpu: whether this process computes on the CPU.
        timeout: for all ranks to come here.

    Returns:
        "gloo" where processes of any machine share a GPU, which NCCL refuses; None: the usual one.

    Raises:
        UserError: some ranks would use the CPU, and others a GPU.
    """
    import torch.distributed as dist

    count = processes.launched_count()
    own = _CPU if cpu else _SHARED_GPU if _shares_gpu() else _OWN_GPU
    counts = {own: count}
    # The processes of one machine see the same; and a group is formed only once.
    if count > processes.local_count() and not dist.is_initialized():
        counts = _count_answers(own, timeout)
    if 0 < counts.get(_CPU, 0) < count:
        raise UserError(
            f"ACCELERATE_USE_CPU: {counts[_CPU]} of {count} processes would use the CPU, and the "
            f"others a GPU; set it to true on all machines, or give each process a GPU"
        )
    return "gloo" if counts.get(_SHARED_GPU) else None


@functools.cache
def _count_answers(own: str, timeout: timedelta) -> dict[str, int]:
    """Return how many ranks give each answer, by the launcher's store, or that of rank 0.

    They are asked once: the store has the numbers for as long as its ranks live.
    """
    from torch.distributed.rendezvous import rendezvous

    store, _, count = next(rendezvous("env://", timeout=timeout))
    _stores.append(store)
    store.add(f"{_KEY}{own}", 1)
    if store.add(f"{_KEY}answers", 1) == count:
        store.set(f"{_KEY}complete", "")
    store.wait([f"{_KEY}complete"], timeout)
    return {answer: store.add(f"{_KEY}{answer}", 0) for answer in (_CPU, _OWN_GPU, _SHARED_GPU)}


def _shares_gpu() -> bool:
    """Tell whether processes of this machine share a GPU.

    Accelerate gives them the GPUs in turn. Gloo sends their messages by way of the host.
    """
    import torch

    return 0 < torch.cuda.device_count() < processes.local_count()
