"""The processes of a run: how they start, how many threads each has, and how they part."""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import sys
import time
from datetime import timedelta
from typing import TYPE_CHECKING

from trainer.base.errors import UserError
from trainer.config.schema import RunConfig
from trainer.ranks import launch_settings
from trainer.ranks.cgroups import cpu_quota
from trainer.ranks.malloc import keep_freed_memory

if TYPE_CHECKING:
    from accelerate import Accelerator
    from torch._C._distributed_c10d import Store

LAUNCH_VARIABLES = ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")

FAILURE_KEY = "lockstep/failure"
"""in the launcher's store: the rank that has failed, and by what"""

log = logging.getLogger("lockstep")


def launched_rank() -> int:
    """This process's rank by the launcher's variables; 0 without a launcher."""
    return _launched("RANK", 0)


def launched_local_rank() -> int:
    """This process's number among those of its machine; 0 without a launcher."""
    return _launched("LOCAL_RANK", 0)


def launched_count() -> int:
    """How many processes the launcher started; 1 without a launcher."""
    return _launched("WORLD_SIZE", 1)


def local_count() -> int:
    """How many of them are on this machine."""
    return _launched("LOCAL_WORLD_SIZE", 1)


def _launched(variable: str, otherwise: int) -> int:
    value = os.environ.get(variable, "")
    return int(value) if value.isdecimal() else otherwise


def check_launch(config: RunConfig) -> None:
    """Make sure that the launch fits the configuration, before anything is loaded or waited for.

    Raises:
        UserError: as `check_count` and `launch_settings.check_settings`.
    """
    check_count(config)
    launch_settings.check_settings(config)


def check_count(config: RunConfig) -> None:
    """Compare `processes` with how many there are.

    Raises:
        UserError: the count is another, or there is a part of a launcher's variables alone.
    """
    count = launched_count()
    world_size = os.environ.get("WORLD_SIZE")
    lacking = [name for name in LAUNCH_VARIABLES if not os.environ.get(name)]
    if world_size is not None and (lacking or not world_size.isdecimal()):
        raise UserError(
            f"WORLD_SIZE: is {world_size!r}, as if by a launcher, which would also have set "
            f"{', '.join(lacking or LAUNCH_VARIABLES)}; unset it, or start with a launcher "
            f"(launch/cpu_processes.sh N, or torchrun --nproc_per_node N)"
        )
    if config.processes not in (None, count):
        raise UserError(
            f"processes: this run must have {config.processes}, but {count} were started; "
            f"launch it with that many (launch/cpu_processes.sh N, or torchrun --nproc_per_node N)"
        )


def check_microbatches(config: RunConfig, count: int | None = None) -> None:
    """Check that the micro-batches, filled in by now, divide by the process count.

    Args:
        count: of a run that is to be; None: as launched.

    Raises:
        UserError: lists the process counts that work.
    """
    count, microbatches = count or launched_count(), config.train.microbatches
    assert microbatches is not None
    if microbatches % count:
        divisors = [n for n in range(1, microbatches + 1) if microbatches % n == 0]
        raise UserError(
            f"train.microbatches: {microbatches} do not divide by {count} processes; "
            f"with {microbatches} start one of {', '.join(map(str, divisors))} processes"
        )


def usable_cores() -> int:
    """The cores that this process may use: of the machine, a batch job or a container."""
    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    quota = cpu_quota()
    if quota is not None:
        cores = max(1, min(cores, int(quota)))
    # Slurm need not enforce it.
    return min(cores, _launched("SLURM_CPUS_ON_NODE", cores))


def default_threads() -> int:
    """The cores that this process may use, divided by the processes of this machine."""
    return max(1, usable_cores() // local_count())


def set_threads(threads: int) -> None:
    """Compute with so many threads in this process; warn where the machine has too few cores."""
    import torch

    torch.set_num_threads(threads)
    too_many = oversubscription(threads)
    if too_many and launched_rank() == 0:
        log.warning("%s", too_many)


def oversubscription(threads: int) -> str | None:
    """In words, that so many threads a process are more than the cores; None where they are not."""
    if threads * local_count() <= usable_cores():
        return None
    return (
        f"threads: {local_count()} processes of {threads} threads share {usable_cores()} cores, "
        f"which is slow"
    )


def default_pins(config: RunConfig, count: int) -> dict[str, int]:
    """Values for the pinned keys where nobody has set them, with so many processes."""
    return {"threads": default_threads(), "train.microbatches": count * config.train.accumulation}


def apply_pins(config: RunConfig) -> None:
    """Check the micro-batches, and set the threads, of a configuration that has both filled in.

    Raises:
        UserError: the processes cannot share the micro-batches.
    """
    check_microbatches(config)
    assert config.threads is not None
    set_threads(config.threads)


def on_cpu() -> bool:
    """Whether runs of this process are on the CPU: there is no GPU, or it is not wanted."""
    import torch

    asked = os.environ.get("ACCELERATE_USE_CPU", "").lower() in ("1", "true", "yes")
    return asked or not torch.accelerator.is_available()


def create_accelerator(config: RunConfig) -> Accelerator:
    """Join the process group, on the GPUs where there are any, else on the CPU.

    Raises:
        UserError: fp16 without a GPU, or tf32 without one that has it.
    """
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState
    from accelerate.utils import DistributedDataParallelKwargs, InitProcessGroupKwargs

    from trainer.base import numerics

    cpu, asked = on_cpu(), config.train.precision
    if asked in ("fp16", "tf32") and cpu:
        raise UserError(
            f"train.precision: {asked} needs a GPU, and this run is on the CPU; "
            f"use fp32, or bf16 to try lower precision"
        )
    keep_freed_memory()
    # A run before this one in the same process may have had another precision.
    AcceleratorState._reset_state(reset_partial_state=True)
    # Read when the first CUDA context is made: without it matrix products have no fixed order.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    precision = {"fp32": "no", "tf32": "no"}.get(asked, asked)
    # DDP would overwrite every rank's batch-norm statistics by those of rank 0, and would fail
    # where a parameter takes no part in a step.
    handler = DistributedDataParallelKwargs(broadcast_buffers=False, find_unused_parameters=True)
    group = InitProcessGroupKwargs(timeout=timedelta(seconds=config.timeout_seconds))
    accelerator = Accelerator(cpu=cpu, mixed_precision=precision, kwargs_handlers=[handler, group])
    # An environment variable may have set it, and `backward` would divide every loss by it.
    accelerator.gradient_accumulation_steps = 1
    if asked == "tf32" and not numerics.has_tf32(accelerator.device):
        raise UserError(
            "train.precision: tf32 needs a GPU that has it, NVIDIA's from Ampere on; use fp32"
        )
    numerics.choose_precision(asked)
    return accelerator


def leave(accelerator: Accelerator) -> None:
    """Leave the process group, at the end of the process, when all ranks are done with it.

    Gloo aborts a process whose peer closes the connection while it is still in a collective, and
    a barrier is a collective too. So the ranks count themselves in the launcher's key-value store.
    Nobody waits for a rank that has failed.
    """
    if accelerator.num_processes > 1:
        # The store is gone where the launcher was killed: then there is nobody to wait for.
        with contextlib.suppress(RuntimeError):
            store = default_store()
            run = store.add(f"lockstep/runs/{accelerator.process_index}", 1)
            store.add(f"lockstep/done/{run}", 1)
            while store.add(f"lockstep/done/{run}", 0) < accelerator.num_processes:
                if store.check([FAILURE_KEY]):
                    return
                time.sleep(0.02)
    # Not before: the store's keys serve for one group, so the next run of this process needs it.
    atexit.unregister(_end_group)
    atexit.register(_end_group)


def _end_group() -> None:
    import torch.distributed as dist

    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()


def default_store() -> Store:
    """The key-value store by which the process group has met."""
    import torch.distributed as dist

    store: Store = dist.distributed_c10d._get_default_store()
    return store
