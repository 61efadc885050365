"""Agree on what connects the processes of a launch: NCCL or gloo.

Each process sees its own GPUs only, and ranks that choose differently never form a group: each
waits for the others until its timeout.
"""

from __future__ import annotations

import platform
import time
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from trainer.base.errors import UserError
from trainer.ranks import processes

if TYPE_CHECKING:
    from torch._C._distributed_c10d import Store

_CPU = "CPU"

_KEY = "lockstep/backend/"

_READERS_KEY = "lockstep/backends read"

READERS_WAIT_S = 5.0
"""of rank 0, which may keep the store, for the others to read why all end"""

_stores: list[Store] = []
"""of agreements, to the end of the process: the store of rank 0 serves those who read later"""

_answers: list[str] = []
"""of all ranks, which are asked once, as a group is formed only once"""


def agree(*, cpu: bool, timeout: timedelta) -> str | None:
    """Return what connects the processes, the same on all ranks; a collective.

    Call it before the group is formed, and before anything is refused for the device of a rank:
    afterwards all have a GPU, or none.

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
    # Whoever starts processes here has chosen the CPU for all of them.
    if count == 1 or (cpu and processes.is_started_here()):
        return None
    if not _answers and not dist.is_initialized():
        _answers.extend(_ask_all(_CPU if cpu else _gpu(), timeout))
    gpus = [answer for answer in _answers if answer != _CPU]
    on_cpu = [rank for rank, answer in enumerate(_answers) if answer == _CPU]
    if on_cpu and gpus:
        if processes.launched_rank() == 0:
            _wait_for_readers(count)
        raise UserError(
            f"ACCELERATE_USE_CPU: {len(on_cpu)} of {count} processes would use the CPU, and the "
            f"others a GPU; rank {on_cpu[0]} has no GPU, or this variable says so; set it to true "
            f"for all, or give each process a GPU"
        )
    return "gloo" if len(set(gpus)) < len(gpus) else None


def _ask_all(own: str, timeout: timedelta) -> list[str]:
    """Return what each rank answers, by the launcher's store, or that of rank 0."""
    from torch.distributed.rendezvous import rendezvous

    store, rank, count = next(rendezvous("env://", timeout=timeout))
    _stores.append(store)
    store.set(f"{_KEY}{rank}", own)
    keys = [f"{_KEY}{other}" for other in range(count)]
    store.wait(keys, timeout)
    answers = [answer.decode() for answer in store.multi_get(keys)]
    store.add(_READERS_KEY, 1)
    return answers


def _wait_for_readers(count: int) -> None:
    """Keep the store until all ranks have read the answers."""
    end_s = time.monotonic() + READERS_WAIT_S
    while _stores[-1].add(_READERS_KEY, 0) < count and time.monotonic() < end_s:
        time.sleep(0.01)


def _gpu() -> str:
    """Return the name of this process's GPU, which no other one has, on any machine.

    Accelerate gives the GPUs that a process sees to the processes of a machine in turn. Where a
    batch system lets each process see another one, all of them have the number 0. The slices of a
    GPU (MIG) have its address, and a UUID each: NCCL goes by the address, and connects no two
    processes of one GPU.
    """
    import torch

    seen = torch.cuda.device_count()
    if not seen:  # a GPU that is not CUDA's: what connects them is not NCCL
        return f"GPU of rank {processes.launched_rank()}"
    found: Any = torch.cuda.get_device_properties(processes.launched_local_rank() % seen)
    address = f"{found.pci_domain_id:04x}:{found.pci_bus_id:02x}:{found.pci_device_id:02x}"
    boot = processes.BOOT_ID
    return f"{boot.read_text('utf-8').strip() if boot.exists() else platform.node()} {address}"
