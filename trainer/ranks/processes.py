"""How many processes and threads a run has, and whether they fit its configuration."""

from __future__ import annotations

import logging
import os
import sys

from trainer.base import kernels
from trainer.base.errors import UserError
from trainer.config.schema import RunConfig
from trainer.ranks import launch_settings
from trainer.ranks.cgroups import cpu_quota

LAUNCH_VARIABLES = ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")

log = logging.getLogger("lockstep")


def launched_rank() -> int:
    """Return this process's rank by the launcher's variables; 0 without a launcher."""
    return _launched("RANK", 0)


def launched_local_rank() -> int:
    """Return this process's number among those of its machine; 0 without a launcher."""
    return _launched("LOCAL_RANK", 0)


def launched_count() -> int:
    """Return how many processes the launcher started; 1 without a launcher."""
    return _launched("WORLD_SIZE", 1)


def local_count() -> int:
    """Return how many of them are on this machine."""
    return _launched("LOCAL_WORLD_SIZE", 1)


def _launched(variable: str, default: int) -> int:
    value = os.environ.get(variable, "")
    return int(value) if value.isdecimal() else default


def check_launch(config: RunConfig) -> None:
    """Make sure that the launch fits the configuration, before anything is loaded or waited for.

    Called before torch is imported, as it chooses the kernels.

    Raises:
        UserError: as `check_count`, `launch_settings.check_settings` and `kernels.choose`.
    """
    check_count(config)
    launch_settings.check_settings(config)
    kernels.choose(config.train.kernels)


def check_count(config: RunConfig) -> None:
    """Compare `processes` with the number of processes that were started.

    Raises:
        UserError: they differ, or only some of a launcher's variables are set.
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
    """Check that the micro-batches, filled in by now, can be shared equally by the processes.

    Args:
        count: processes of a future run; None: as launched.

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
    """Return the cores that this process may use: of the machine, a batch job or a container."""
    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    quota = cpu_quota()
    if quota is not None:
        cores = max(1, min(cores, int(quota)))
    # Slurm does not always enforce it.
    return min(cores, _launched("SLURM_CPUS_ON_NODE", cores))


def default_threads() -> int:
    """Return the cores that this process may use, divided by the processes of this machine."""
    return max(1, usable_cores() // local_count())


def decoding_threads() -> int:
    """Return how many threads of this process decode pictures, however many compute."""
    return max(1, usable_cores() // local_count())


def set_threads(threads: int) -> None:
    """Compute with this many threads in this process; warn if the machine has too few cores."""
    import torch

    torch.set_num_threads(threads)
    warning = oversubscription_warning(threads)
    if warning and launched_rank() == 0:
        log.warning("%s", warning)


def oversubscription_warning(threads: int) -> str | None:
    """Say that this many threads a process are more than the cores; None if they are not."""
    if threads * local_count() <= usable_cores():
        return None
    return (
        f"threads: {local_count()} processes of {threads} threads share {usable_cores()} cores, "
        f"which is slow"
    )


def default_pins(config: RunConfig, count: int) -> dict[str, int]:
    """Return values for the pinned keys that nobody has set, with this many processes."""
    threads = 1 if config.train.kernels == "portable" else default_threads()
    return {"threads": threads, "train.microbatches": count * config.train.accumulation}


def apply_pins(config: RunConfig) -> None:
    """Check the micro-batches and set the threads; the configuration has both filled in.

    Raises:
        UserError: the processes cannot share the micro-batches equally.
    """
    check_microbatches(config)
    assert config.threads is not None
    set_threads(config.threads)
