"""Check the machine as this process finds it: its launch, cores, devices, versions and tracking."""

from __future__ import annotations

import contextlib
import os
import platform
import re
from importlib import metadata, util

from trainer.base import kernels
from trainer.base.errors import UserError
from trainer.base.timeouts import run_with_timeout
from trainer.commands.doctor.finding import Finding
from trainer.config.schema import RunConfig
from trainer.ranks import launch_settings, process_group, processes
from trainer.ranks.cgroups import cpu_quota
from trainer.run.tracking import weights_and_biases as wandb_tracking

VARIABLES = (
    *("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"),
    *("OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES", "LOCKSTEP_DATA", processes.LIMIT_VARIABLE),
    *("SLURM_JOB_ID", "SLURM_JOB_NUM_NODES", "SLURM_NTASKS", "SLURM_PROCID", "SLURM_NODEID"),
    *("SLURM_CPUS_PER_TASK", "SLURM_CPUS_ON_NODE", "SLURM_GPUS_ON_NODE"),
)
"""of a launch, which change what runs; besides Accelerate's"""

PACKAGES = ("torch", "accelerate", "numpy", "safetensors", "wandb")

WANDB_LIMIT_S = 4.0
"""for wandb: its import takes a second, and it may ask a server that hangs"""

WITHOUT_WANDB = "the training does not need it; tracking.wandb: disabled leaves it out"


def check_launch_variables(config: RunConfig) -> Finding:
    """Check and list the variables that a launcher, a batch system or the user has set."""
    try:
        launch_settings.check_settings(config)
    except UserError as error:
        return Finding("launch variables", "problem", str(error))
    # It always sets five for torch.compile, which say that nothing is compiled.
    of_accelerate = re.compile(r"ACCELERATE_(?!DYNAMO)")
    names = [*VARIABLES, *sorted(filter(of_accelerate.match, os.environ))]
    found = [f"{name}={os.environ[name]}" for name in names if name in os.environ]
    return Finding("launch variables", "ok", " ".join(found) or "none")


def check_processes(config: RunConfig) -> Finding:
    """Check how many processes there are, or will be, and that they know of each other."""
    try:
        processes.check_count(config)
        planned = count_to_start(config)
    except UserError as error:
        return Finding("processes", "problem", str(error))
    tasks = os.environ.get("SLURM_STEP_NUM_TASKS", "1")
    if tasks != "1" and "WORLD_SIZE" not in os.environ:
        return Finding(
            "processes",
            "problem",
            f"srun has started {tasks} tasks, but no launcher: each would be its own run",
            "have srun start one launcher on each node: launch/slurm.sbatch",
        )
    count, local = processes.launched_count(), processes.local_count()
    if count > 1:
        return Finding("processes", "ok", f"{count}, {local} of them on this machine")
    if "ACCELERATE_MIXED_PRECISION" in os.environ:
        return Finding("processes", "ok", "1, as accelerate launch does with MULTI_CPU or --cpu")
    if planned > 1:
        return Finding("processes", "ok", f"{planned}, which train.py starts by itself")
    if idle := processes.idle_warning(config, gpus()):
        return Finding("processes", "warning", idle)
    return Finding("processes", "ok", "1")


def count_to_start(config: RunConfig) -> int:
    """Return how many processes train.py would start here; 1 of those that a launcher has started.

    Raises:
        UserError: it would not start so many.
    """
    return processes.count_to_start(config, gpus() if processes.may_start_several(config) else 0)


def gpus() -> int:
    """Return how many GPUs a run would use."""
    import torch

    return 0 if process_group.runs_on_cpu() else torch.accelerator.device_count()


def cores() -> Finding:
    """Count the cores that this process may use, and those of the machine."""
    quota = cpu_quota()
    limit = "" if quota is None else f", control group: the time of {quota:g}"
    text = f"{processes.usable_cores()} usable of {os.cpu_count()} of {platform.node()}{limit}"
    return Finding("cores", "ok", text)


def check_threads(threads: int, count: int) -> Finding:
    """Compare the run's `threads` with the cores.

    Args:
        count: processes of this machine.
    """
    too_many = processes.oversubscription_warning(threads, count)
    if too_many:
        advice = (
            "start fewer processes, or a new run with fewer threads; "
            "of a batch system, ask for more cores"
        )
        return Finding("threads", "warning", too_many, advice)
    return Finding("threads", "ok", f"{threads} for each process")


def versions() -> Finding:
    """List the versions of Python and of the packages on which a run's bits depend."""
    found = [f"python {platform.python_version()}"]
    for name in PACKAGES:
        try:
            found.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            found.append(f"no {name}")
    return Finding("versions", "ok", ", ".join(found))


def check_kernels(config: RunConfig) -> Finding:
    """Choose the run's kernels, and say whether other processors have the same; before torch."""
    if config.train.kernels == "portable":
        try:
            kernels.choose("portable")
        except UserError as error:
            return Finding("kernels", "problem", str(error))
        text = (
            "portable: the same bits on every x86-64 Linux machine with AVX2 and these versions of "
            "torch and numpy"
        )
        return Finding("kernels", "ok", text)
    missing = kernels.missing_features()
    would = f"needs {' and '.join(missing)}" if missing else "would work here"
    text = f"native: the bits of this kind of processor; train.kernels: portable {would}"
    return Finding("kernels", "ok", text)


def describe_promise(config: RunConfig) -> Finding:
    """Say in three sentences what the bits of a run depend on."""
    if config.train.reduction == "fast":
        text = "only to rounding: train.reduction: fast adds in another order on other processes"
        return Finding("same bits", "ok", text)
    microbatches = config.train.microbatches
    counts = "any number of processes that divides its micro-batches"
    if microbatches:
        divisors = [str(n) for n in range(1, microbatches + 1) if microbatches % n == 0]
        counts = f"{', '.join(divisors)} process{'es' * (microbatches > 1)}"
    where = "machines like this one"
    if config.train.kernels == "portable":
        where = "every x86-64 Linux machine with AVX2"
    text = (
        f"this run ends with the same weights on {counts} and any cores. Killed, moved and started "
        f"again, too, on {where}. Its receipt.json lets anybody with the images check that."
    )
    return Finding("same bits", "ok", text)


def check_devices() -> Finding:
    """Check that each process has a GPU, or why the CPU is used."""
    import torch

    if process_group.runs_on_cpu():
        why = "there is no GPU that torch can use"
        if torch.accelerator.is_available():
            why = "ACCELERATE_USE_CPU is set, though there is a GPU"
        return Finding("devices", "ok", f"the CPU: {why}")
    count, wanted = torch.accelerator.device_count(), processes.local_count()
    names = _gpu_names(count)
    if wanted > count:
        return Finding(
            "devices",
            "problem",
            f"{wanted} processes on this machine, but {count} GPUs ({names})",
            "start as many processes as there are GPUs, or set ACCELERATE_USE_CPU=true",
        )
    return Finding("devices", "ok", f"{count} GPU{'s' * (count > 1)} ({names})")


def _gpu_names(count: int) -> str:
    import torch

    if not torch.cuda.is_available():
        return str(torch.accelerator.current_accelerator())
    names = [torch.cuda.get_device_name(index) for index in range(count)]
    return ", ".join(f"{names.count(name)} x {name}" for name in dict.fromkeys(names))


def check_weights_and_biases(asked: wandb_tracking.Mode) -> Finding:
    """Say how a run with this `tracking.wandb` would be tracked; the server is not asked."""
    name, mode = "Weights & Biases", wandb_tracking.resolve_mode(asked)
    if mode == "disabled":
        return Finding(name, "ok", "disabled")
    if mode == "offline":
        return Finding(name, "ok", "kept offline in the run's folder")
    if util.find_spec("wandb") is None:
        return Finding(name, "warning", "off: the package wandb is not installed", WITHOUT_WANDB)
    try:
        found = run_with_timeout(WANDB_LIMIT_S, wandb_tracking.has_key)
    except Exception as error:  # a broken installation may raise anything
        return Finding(name, "warning", f"{type(error).__name__}: {error}", WITHOUT_WANDB)
    finally:
        with contextlib.suppress(Exception):
            wandb_tracking.end_service()
    if found:
        return Finding(name, "ok", "a key is found: online, or offline where the server fails")
    if mode == "auto":
        return Finding(name, "ok", f"kept offline in the run's folder: {wandb_tracking.NO_KEY}")
    return Finding(name, "warning", f"this run is kept offline: {wandb_tracking.NO_KEY}")
