"""Profiling the engine's own loop."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch.profiler import ProfilerActivity
from torch.profiler import profile as torch_profiler

from trainer.base import profiler_ranges
from trainer.base.errors import UserError
from trainer.base.files import write_file
from trainer.base.terminal import progress_bar
from trainer.checkpoint.writing import NoCheckpoints
from trainer.commands.options import report_write_errors
from trainer.config.schema import RunConfig, replace
from trainer.ranks import processes
from trainer.ranks.preemption import StopRequest
from trainer.ranks.process_group import join_process_group
from trainer.run.engine_builder import build_engine
from trainer.run.run_folder import fill_pinned
from trainer.training.engine import Engine

PHASES = ("data", "augmentation", "forward", "backward", "reduction", "optimiser", "validation")
"""the names of the ranges"""


def profile(
    config: RunConfig, warmup: int, steps: int, trace: Path, *, memory: bool
) -> dict[str, Any] | None:
    """Profile steps of a run from its beginning; all ranks call it.

    Args:
        config: of the run.
        warmup: steps that are not timed.
        steps: to time, and then to profile.
        trace: where rank 0 writes the trace.
        memory: whether to count what operators allocate.

    Returns:
        What was found, as JSON, on rank 0; None elsewhere.

    Raises:
        UserError: the run would not start, or has fewer steps.
    """
    with join_process_group(config) as accelerator:
        engine = _engine(accelerator, config)
        _check_steps(engine, warmup, steps)
        profiler = _profiler(accelerator.device, memory) if accelerator.is_main_process else None
        with (
            progress_bar("steps", warmup + 2 * steps, enabled=profiler is not None) as progress,
            contextlib.ExitStack() as recording,
        ):
            _advance(engine, warmup)
            progress.update(warmup)
            seconds = _advance(engine, steps)
            progress.update(steps)
            if profiler:
                recording.enter_context(profiler)
                recording.enter_context(profiler_ranges.record(lambda: _finish_work(engine)))
            profiled_seconds = _advance(engine, steps)
        if profiler is None:
            return None
        with report_write_errors("--trace", trace):
            write_file(trace, lambda path: profiler.export_chrome_trace(str(path)))
        found = _found(engine, profiler, steps, seconds, profiled_seconds)
        return {**found, "trace": str(trace)}


def _engine(accelerator: Accelerator, config: RunConfig) -> Engine:
    config = fill_pinned(config, processes.default_pins(config, accelerator.num_processes))
    # What would end the steps before their number is reached.
    config = replace(config, {"train.max_seconds": None, "train.patience": None})
    processes.apply_pins(config)
    return build_engine(accelerator, config, NoCheckpoints(), StopRequest())


def _check_steps(engine: Engine, warmup: int, steps: int) -> None:
    there, wanted = engine.config.train.epochs * engine.batches.steps, warmup + 2 * steps
    if wanted > there:
        raise UserError(
            f"--steps, --warmup: {warmup} + 2 x {steps} are {wanted} steps, but the run has "
            f"{there}; ask for fewer, or for more train.epochs"
        )


def _advance(engine: Engine, steps: int) -> float:
    """Do the next steps; the seconds that they take, with the validations between them."""
    last = engine.state.step + steps
    _finish_work(engine)
    start_s = time.perf_counter()
    engine.fit((1 + (last - 1) // engine.batches.steps, last))
    _finish_work(engine)
    return time.perf_counter() - start_s


def _finish_work(engine: Engine) -> None:
    if engine.accelerator.device.type == "cuda":
        torch.cuda.synchronize(engine.accelerator.device)


def _profiler(device: torch.device, memory: bool) -> torch_profiler:
    activities = [ProfilerActivity.CPU]
    if device.type == "cuda":
        activities.append(ProfilerActivity.CUDA)
    return torch_profiler(activities=activities, profile_memory=memory)


def _found(
    engine: Engine, profiler: torch_profiler, steps: int, seconds: float, profiled_seconds: float
) -> dict[str, Any]:
    on_gpu = engine.accelerator.device.type == "cuda"
    events = [e for e in profiler.key_averages() if e.device_type.name == "CPU"]
    total_ms = 1e3 * profiled_seconds
    accelerator, train = engine.accelerator, engine.config.train
    overlapped = train.reduction == "fast" and accelerator.num_processes > 1
    return {
        "device": engine.environment["device"],
        "processes": accelerator.num_processes,
        "steps": steps,
        "batch_size": train.batch_size,
        "step_ms": 1e3 * seconds / steps,
        "profiled_step_ms": total_ms / steps,
        "phases": _phases(events, steps, total_ms),
        "note": _note(on_gpu, overlapped),
        "operators": _operators(events, total_ms, on_gpu, bool(profiler.profile_memory)),
    }


def _phases(events: list[Any], steps: int, total_ms: float) -> list[dict[str, Any]]:
    spent = dict.fromkeys(PHASES, 0.0)
    spent |= {e.key: e.cpu_time_total / 1e3 for e in events if e.key in PHASES}
    spent["data"] -= spent["augmentation"]  # which is inside of it
    spent["the rest"] = max(0.0, total_ms - sum(spent.values()))
    return [
        {"name": name, "step_ms": value / steps, "share": value / total_ms}
        for name, value in spent.items()
    ]


def _note(on_gpu: bool, overlapped: bool) -> str | None:
    notes = []
    if overlapped:
        notes.append("DDP sums the gradients inside backward, and the reduction has the rest")
    if on_gpu:
        notes.append("each phase ends with a wait for the GPU, which the run itself does not have")
    return "; ".join(notes) or None


def _operators(
    events: list[Any], total_ms: float, on_gpu: bool, memory: bool
) -> list[dict[str, Any]]:
    """Those of torch, the longest by themselves first."""
    rows = []
    for event in events:
        if event.key in PHASES or event.is_user_annotation:
            continue
        self_us = event.self_device_time_total if on_gpu else event.self_cpu_time_total
        total_us = event.device_time_total if on_gpu else event.cpu_time_total
        row = {
            "name": event.key,
            "calls": event.count,
            "self_ms": self_us / 1e3,
            "share": self_us / 1e3 / total_ms,
            "total_ms": total_us / 1e3,
        }
        if memory:
            row["allocated_bytes"] = (
                event.self_device_memory_usage if on_gpu else event.self_cpu_memory_usage
            )
        rows.append(row)
    return sorted(rows, key=lambda row: -row["self_ms"])
