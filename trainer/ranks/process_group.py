"""The process group: joined at the start of a command, left at its end."""

from __future__ import annotations

import atexit
import contextlib
import os
import time
from collections.abc import Iterator
from datetime import timedelta
from typing import TYPE_CHECKING

from trainer.base.errors import UserError
from trainer.config.schema import RunConfig, replace
from trainer.ranks import backends, collectives, lost_ranks, mailboxes, nccl, processes

if TYPE_CHECKING:
    from accelerate import Accelerator


@contextlib.contextmanager
def join_process_group(config: RunConfig) -> Iterator[Accelerator]:
    """Join the group that a launcher has started, or work in a single process; leave it at the end.

    For commands that compute with several processes but write no run's folder.

    Args:
        config: only its precision and timeout matter; any number of processes will do.

    Raises:
        UserError: only a part of a launcher's variables is set, fp16 was asked for without a GPU,
            or another rank has a different configuration.
        LostRankError: another rank has failed.
    """
    processes.check_launch(replace(config, {"processes": None}))
    accelerator = create_accelerator(config)
    lost_ranks.note_host(accelerator)
    try:
        collectives.check_same_configuration(accelerator, config)
        yield accelerator
    except BaseException as error:
        is_known = lost_ranks.is_known_to_all(error)
        if not is_known and (lost := lost_ranks.diagnose(accelerator, error)):
            raise lost from error
        raise
    leave(accelerator)


def runs_on_cpu() -> bool:
    """Tell whether runs of this process use the CPU: there is no GPU, or it is not wanted."""
    import torch

    return wants_cpu() or not torch.accelerator.is_available()


def wants_cpu() -> bool:
    """Tell whether the user has asked for the CPU."""
    return os.environ.get("ACCELERATE_USE_CPU", "").lower() in ("1", "true", "yes")


def create_accelerator(config: RunConfig) -> Accelerator:
    """Join the process group, on the GPUs if there are any, otherwise on the CPU.

    Raises:
        UserError: fp16 without a GPU, tf32 without one that has it, portable kernels on a GPU,
            torch's checks of all calls with DDP, or some ranks would use a GPU and others not.
    """
    import torch
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState, PartialState
    from accelerate.utils import DistributedDataParallelKwargs, InitProcessGroupKwargs

    from trainer.base import numerics
    from trainer.ranks.caller_settings import keep_freed_memory, use_huge_pages

    cpu, asked = runs_on_cpu(), config.train.precision
    timeout = timedelta(seconds=config.timeout_seconds)
    backend = backends.agree(cpu=cpu, timeout=timeout)
    if asked in ("fp16", "tf32") and cpu:
        raise UserError(
            f"train.precision: {asked} needs a GPU, and this run is on the CPU; "
            f"use fp32, or bf16 to try lower precision"
        )
    if config.train.kernels == "portable" and not cpu:
        raise UserError(
            "train.kernels: portable computes on CPUs, and this process would use a GPU; set "
            "ACCELERATE_USE_CPU=true, or add --train.kernels native to the command"
        )
    keep_freed_memory()
    use_huge_pages()
    # An earlier run in the same process may have had another precision.
    AcceleratorState._reset_state(reset_partial_state=True)
    # Read when the first CUDA context is made: without it matrix products have no fixed order.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    precision = {"fp32": "no", "tf32": "no"}.get(asked, asked)
    # DDP would overwrite every rank's batch-norm statistics with those of rank 0, and would fail
    # when a parameter takes no part in a step.
    handler = DistributedDataParallelKwargs(broadcast_buffers=False, find_unused_parameters=True)
    if not cpu:
        nccl.choose_dump_place()
    if config.train.reduction == "fast" and (cpu or backend == "gloo"):
        _check_ddp()
    group = InitProcessGroupKwargs(backend or InitProcessGroupKwargs.backend, timeout=timeout)
    accelerator = Accelerator(cpu=cpu, mixed_precision=precision, kwargs_handlers=[handler, group])
    if accelerator.device.type == "cpu":
        # Of several processes it has a number, with which torch copies what is there already.
        PartialState().device = accelerator.state.device = torch.device("cpu")
    # An environment variable may have set it, and `backward` would divide every loss by it.
    accelerator.gradient_accumulation_steps = 1
    if asked == "tf32" and not numerics.has_tf32(accelerator.device):
        raise UserError(
            "train.precision: tf32 needs a GPU that has it, NVIDIA's from Ampere on; use fp32"
        )
    numerics.choose_precision(asked)
    nccl.watch_group(accelerator, config.timeout_seconds)
    return accelerator


def _check_ddp() -> None:
    """Refuse what ends a process without a message: seen with torch 2.13, and gloo."""
    variable = "TORCH_DISTRIBUTED_DEBUG"
    if processes.launched_count() > 1 and os.environ.get(variable, "").upper() == "DETAIL":
        raise UserError(
            f"{variable}: is DETAIL, with which torch's DDP breaks off on the CPU, and "
            f"train.reduction: fast uses that; set INFO, or train.reduction: exact"
        )


def leave(accelerator: Accelerator) -> None:
    """Leave the process group, at the end of the process, when all ranks have finished with it.

    Gloo aborts a process whose peer closes the connection while it is still in a collective, and
    a barrier is a collective too. So the ranks count themselves in the launcher's key-value store.
    Nobody waits for a rank that has failed.
    """
    if accelerator.num_processes > 1:
        # The store is gone if the launcher was killed: then there is nobody to wait for.
        with contextlib.suppress(RuntimeError):
            store = lost_ranks.default_store()
            run = store.add(f"lockstep/runs/{accelerator.process_index}", 1)
            store.add(f"lockstep/done/{run}", 1)
            while store.add(f"lockstep/done/{run}", 0) < accelerator.num_processes:
                if store.check([lost_ranks.FAILURE_KEY]):
                    mailboxes.close()
                    return
                time.sleep(0.02)
        mailboxes.close()
    # Not earlier: the store's keys serve one group, so the next run of this process needs it.
    atexit.unregister(_destroy_group)
    atexit.register(_destroy_group)


def _destroy_group() -> None:
    import torch.distributed as dist

    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()
