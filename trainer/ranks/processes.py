"""How many processes and threads a run has, and whether they fit its configuration."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from trainer.base import kernels
from trainer.base.errors import UserError
from trainer.config.schema import RunConfig, default_choice
from trainer.ranks import launch_settings
from trainer.ranks.cgroups import cpu_quota

LAUNCH_VARIABLES = ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")

STARTED_HERE = "lockstep"
"""TORCHELASTIC_RUN_ID of processes that a command has started by itself"""

LIMIT_VARIABLE = "LOCKSTEP_PROCESSES"
"""how many of these at most"""

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
"""Linux's name of a machine since it was started, the same in all of its containers"""

DEFAULT_THREADS = 1

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
    """Return how many of them are on this machine, this one at least."""
    return max(1, _launched("LOCAL_WORLD_SIZE", 1))


def _launched(variable: str, default: int) -> int:
    value = os.environ.get(variable, "")
    return int(value) if value.isdecimal() else default


def is_launched() -> bool:
    """Tell whether a launcher has started this process; Accelerate's, also if it is the only one.

    The last variable is one that Accelerate's launcher always sets, and Accelerate itself does not.
    """
    names = ("WORLD_SIZE", "TORCHELASTIC_RUN_ID", "ACCELERATE_MIXED_PRECISION")
    return any(name in os.environ for name in names)


def is_started_here() -> bool:
    """Tell whether this process was started by a command itself, without a launcher."""
    return os.environ.get("TORCHELASTIC_RUN_ID") == STARTED_HERE


def check_launch(config: RunConfig, *, starts_others: bool = True) -> None:
    """Make sure that the launch fits the configuration, before anything is loaded or waited for.

    Called before torch is imported, as it chooses the kernels.

    Args:
        starts_others: whether without a launcher the processes are started afterwards.

    Raises:
        UserError: as `check_count`, `launch_settings.check_settings` and `kernels.choose`.
    """
    check_count(config, starts_others=starts_others)
    launch_settings.check_settings(config)
    kernels.choose(config.train.kernels)


def may_start_several(config: RunConfig) -> bool:
    """Tell whether a command may start more than one process for this configuration."""
    asked, microbatches = config.processes, config.train.microbatches
    wanted = (microbatches or 1) if asked is None else asked
    return not is_launched() and wanted > 1


def count_to_start(config: RunConfig, gpus: int) -> int:
    """Return how many processes a command that was started without a launcher has on this machine.

    Args:
        gpus: that the run would use; 0: it is on the CPU.

    Raises:
        UserError: more are asked for than there are GPUs, or than this system can start.
    """
    if not may_start_several(config):
        return 1
    if sys.platform != "linux":
        if config.processes is None:
            return 1
        raise UserError(
            f"processes: {config.processes} need a launcher on {sys.platform}, torchrun"
        )
    if config.processes is not None and 0 < gpus < config.processes:
        raise UserError(
            f"processes: {config.processes}, but this machine has {gpus} GPU{'s' * (gpus > 1)}; "
            f"ask for as many at most, or set ACCELERATE_USE_CPU=true"
        )
    return choose_count(
        config.processes,
        config.train.microbatches,
        threads=config.threads or DEFAULT_THREADS,
        cores=usable_cores(),
        gpus=gpus,
        limit=_limit(),
    )


def choose_count(
    asked: int | None,
    microbatches: int | None,
    *,
    threads: int,
    cores: int,
    gpus: int,
    limit: int | None = None,
) -> int:
    """Return how many processes a machine starts for a run: never more than its configuration has.

    Args:
        asked: `processes`, which is what is started; None: as many as divide the micro-batches
            and as there are GPUs or, without any, cores for their threads.
        microbatches: None: one process's own, since the machine must not choose the run.
        limit: upper bound where none are asked for.
    """
    if asked is not None:
        return asked
    room = min(gpus or cores // threads, microbatches or 1, limit or microbatches or 1)
    return max(n for n in range(1, max(room, 1) + 1) if (microbatches or 1) % n == 0)


def idle_warning(config: RunConfig, gpus: int) -> str | None:
    """Say that the machine would be mostly idle, as a run does not say into what it divides.

    Args:
        gpus: that the run would use; 0: it is on the CPU.
    """
    counted = config.processes is not None or config.train.microbatches is not None
    room = gpus or usable_cores() // (config.threads or DEFAULT_THREADS)
    if counted or is_launched() or min(room, _limit() or room) < 2:
        return None
    return (
        f"train.microbatches: null, so this run has one process, though there are "
        f"{room} {'GPUs' if gpus else 'cores'}; a number, such as 4, lets it use as many"
    )


def _limit() -> int | None:
    value = os.environ.get(LIMIT_VARIABLE)
    if value is None:
        return None
    if not value.isdecimal() or int(value) < 1:
        raise UserError(f"{LIMIT_VARIABLE}: must be a number from 1, found {value!r}; or unset it")
    return int(value)


def check_count(config: RunConfig, *, starts_others: bool = True) -> None:
    """Compare `processes` with the number of processes that were started.

    Args:
        starts_others: as for `check_launch`.

    Raises:
        UserError: they differ, or only some of a launcher's variables are set, or these say that
            no process was started; or that many cannot share the micro-batches equally.
    """
    if starts_others and not is_launched():
        if config.processes is not None and config.train.microbatches is not None:
            check_microbatches(config, config.processes)
        return
    count = launched_count()
    world_size = os.environ.get("WORLD_SIZE")
    lacking = [name for name in LAUNCH_VARIABLES if not os.environ.get(name)]
    if world_size is not None and (lacking or not world_size.isdecimal()):
        raise UserError(
            f"WORLD_SIZE: is {world_size!r}, as if by a launcher, which would also have set "
            f"{', '.join(lacking or LAUNCH_VARIABLES)}; unset it, or start with a launcher "
            f"(torchrun --nproc_per_node N)"
        )
    for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE"):
        if _launched(name, 1) == 0:
            raise UserError(
                f"{name}: is {os.environ[name]!r}, but a launcher starts at least one process; "
                f"unset it and {', '.join(LAUNCH_VARIABLES)}, or start with a launcher"
            )
    if config.processes not in (None, count):
        raise UserError(
            f"processes: this run must have {config.processes}, but {count} were started; "
            f"launch it with that many (torchrun --nproc_per_node N), or do python train.py"
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


_others_wait = False
"""whether the other processes of this machine have nothing to do meanwhile"""


@contextlib.contextmanager
def use_all_cores() -> Iterator[None]:
    """Decode with the cores of all processes of this machine while the others wait for this one."""
    global _others_wait  # noqa: PLW0603 - the cores are those of the whole process
    _others_wait = True
    try:
        yield
    finally:
        _others_wait = False


def decoding_threads() -> int:
    """Return how many threads of this process decode pictures, however many compute."""
    return max(1, usable_cores() // (1 if _others_wait else local_count()))


def set_threads(threads: int) -> None:
    """Compute with this many threads in this process; warn if the machine has too few cores."""
    import torch

    torch.set_num_threads(threads)
    warning = oversubscription_warning(threads)
    if warning and launched_rank() == 0:
        log.warning("%s", warning)


def oversubscription_warning(threads: int, count: int | None = None) -> str | None:
    """Say that this many threads a process are more than the cores; None if they are not.

    Args:
        count: processes of this machine; None: as launched.
    """
    count = count or local_count()
    if threads * count <= usable_cores():
        return None
    return (
        f"threads: {count} process{'es' * (count > 1)} of {threads} thread{'s' * (threads > 1)} "
        f"share {usable_cores()} core{'s' * (usable_cores() > 1)}, which is slow"
    )


def default_pins(config: RunConfig, count: int) -> dict[str, Any]:
    """Return values for the pinned keys that nobody has set, with this many processes."""
    return {
        "threads": DEFAULT_THREADS,
        "train.microbatches": count * config.train.accumulation,
        "train.choose_by": default_choice(config),
    }


def apply_pins(config: RunConfig) -> None:
    """Check the micro-batches and set the threads; the configuration has both filled in.

    Raises:
        UserError: the processes cannot share the micro-batches equally.
    """
    check_microbatches(config)
    assert config.threads is not None
    set_threads(config.threads)
