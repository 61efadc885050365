"""Show where the time of a run's steps goes: by phase, by operator, and as a trace.

After a warm-up, this many steps of the run are timed as they are, and as many again under torch's
profiler. Keys of the configuration follow, as for train.py. The run's folder is neither read nor
changed; the steps are the run's first ones. Of several processes rank 0 reports. Open the trace in
chrome://tracing or at ui.perfetto.dev. "self" is without what an operator calls, and its MB are
those that it allocates less those that it frees.

example: python -m trainer profile --config configs/digits.yaml --steps 5 --memory
"""

from __future__ import annotations

import argparse
import contextlib
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainer.base.errors import UserError
from trainer.base.terminal import format_table, print_report, progress_bar
from trainer.commands.options import add_json_option, positive_integer, report_write_errors
from trainer.config import command_line
from trainer.config.schema import RunConfig, replace
from trainer.ranks import processes

if TYPE_CHECKING:
    from accelerate import Accelerator

    from trainer.training.engine import Engine

PHASES = ("data", "augmentation", "forward", "backward", "reduction", "optimiser", "validation")
"""the ranges that the table shows; "exchange" and "logging" are only in the trace"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments; the others are the configuration's."""
    for name, default, text in (
        ("--steps", 10, "to profile"),
        ("--warmup", 5, "steps before"),
        ("--rows", 15, "operators to show"),
    ):
        parser.add_argument(
            name,
            type=positive_integer,
            default=default,
            metavar="N",
            help=f"{text}; default: {default}",
        )
    parser.add_argument("--memory", action="store_true", help="what operators allocate, too")
    parser.add_argument(
        "--trace",
        type=Path,
        default=Path("trace.json"),
        metavar="FILE",
        help="replaced; packed where it ends in .gz; default: trace.json",
    )
    add_json_option(parser)
    parser.set_defaults(configuration=[])


def run(arguments: argparse.Namespace) -> None:
    """Do the steps, write the trace and print the tables, on rank 0.

    Raises:
        UserError: the run would not start or is shorter, or the trace cannot be written.
    """
    config = command_line.parse(arguments.configuration)
    processes.check_launch(config)
    _check_trace(arguments.trace)
    # Read when torch is imported. Without them the profiler logs about itself and, with --memory,
    # about blocks that are older than the profile.
    os.environ.setdefault("KINETO_LOG_LEVEL", "6")
    if arguments.memory:
        os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    import trainer.run.engine_builder  # noqa: F401 - before the processes are started
    from trainer.ranks import local_processes

    local_processes.run(config, lambda: _run(config, arguments))


def _run(config: RunConfig, arguments: argparse.Namespace) -> None:
    from trainer.ranks.process_group import join_process_group

    with join_process_group(config) as accelerator:
        found = _profile(accelerator, config, arguments)
        if found:
            if not arguments.json:
                found["operators"] = found["operators"][: arguments.rows]
            print_report(found, _lines(found), as_json=arguments.json)


def _check_trace(trace: Path) -> None:
    folder = trace.parent
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        raise UserError(f"--trace: {folder} is not a folder that can be written")
    if trace.is_dir():
        raise UserError(f"--trace: {trace} is a folder; name a file in it")


def _profile(
    accelerator: Accelerator, config: RunConfig, arguments: argparse.Namespace
) -> dict[str, Any] | None:
    """Profile the steps and write the trace; a collective.

    Returns:
        The times, as JSON, on rank 0; None on the others.

    Raises:
        UserError: the run has fewer steps, or the trace cannot be written.
    """
    from torch.profiler import ProfilerActivity, profile

    from trainer.base import device_memory, profiler_ranges
    from trainer.base.files import write_file
    from trainer.ranks.preemption import StopRequest
    from trainer.run.engine_builder import build_unsaved_engine

    warmup, steps, trace = arguments.warmup, arguments.steps, arguments.trace
    # Without what would end the run before the last of the steps.
    config = replace(config, {"train.max_seconds": None, "train.patience": None})
    engine = build_unsaved_engine(accelerator, config, StopRequest())
    _check_steps(engine, warmup, steps)
    on_gpu = accelerator.device.type == "cuda"
    activities = [ProfilerActivity.CPU, *[ProfilerActivity.CUDA] * on_gpu]
    profiler = profile(activities=activities, profile_memory=arguments.memory)
    is_main = accelerator.is_main_process
    with (
        progress_bar("steps", warmup + 2 * steps, enabled=is_main) as progress,
        contextlib.ExitStack() as recording,
    ):
        _advance(engine, warmup)
        progress.update(warmup)
        seconds = _advance(engine, steps)
        peak_bytes = device_memory.peak_bytes(accelerator.device)  # without the profiler's
        progress.update(steps)
        if is_main:
            recording.enter_context(profiler)
            recording.enter_context(profiler_ranges.record(lambda: _wait_for_device(engine)))
        profiled_seconds = _advance(engine, steps)
    if not is_main:
        return None
    with report_write_errors("--trace", trace):
        write_file(trace, lambda path: profiler.export_chrome_trace(str(path)))
    events = [e for e in profiler.key_averages() if e.device_type.name == "CPU"]
    total_ms = 1e3 * profiled_seconds
    return {
        "device": engine.environment["device"],
        "processes": accelerator.num_processes,
        "steps": steps,
        "batch_size": config.train.batch_size,
        "step_ms": 1e3 * seconds / steps,
        "profiled_step_ms": total_ms / steps,
        "peak_memory_bytes": peak_bytes,
        "peak_memory_of": "tensors on the GPU" if on_gpu else "the process",
        "phases": _phases(events, steps, total_ms),
        "note": _note(config, accelerator),
        "operators": _operators(events, total_ms, on_gpu=on_gpu, memory=arguments.memory),
        "trace": str(trace),
    }


def _check_steps(engine: Engine, warmup: int, steps: int) -> None:
    there, wanted = engine.config.train.epochs * engine.batches.steps, warmup + 2 * steps
    if wanted > there:
        raise UserError(
            f"--steps, --warmup: {warmup} + 2 x {steps} are {wanted} steps, but the run has "
            f"{there}; ask for fewer, or for more train.epochs"
        )


def _advance(engine: Engine, steps: int) -> float:
    """Do the next steps; return the seconds that they took, with the validations between them."""
    last = engine.state.step + steps
    _wait_for_device(engine)
    start_s = time.perf_counter()
    engine.fit((1 + (last - 1) // engine.batches.steps, last))
    _wait_for_device(engine)
    return time.perf_counter() - start_s


def _wait_for_device(engine: Engine) -> None:
    import torch

    if engine.accelerator.device.type == "cuda":
        torch.cuda.synchronize(engine.accelerator.device)


def _phases(events: Sequence[Any], steps: int, total_ms: float) -> list[dict[str, Any]]:
    spent = dict.fromkeys(PHASES, 0.0)
    spent |= {e.key: e.cpu_time_total / 1e3 for e in events if e.key in PHASES}
    spent["data"] -= spent["augmentation"]  # which is part of it
    spent["the rest"] = max(0.0, total_ms - sum(spent.values()))
    return [
        {"name": name, "step_ms": value / steps, "share": value / total_ms}
        for name, value in spent.items()
    ]


def _note(config: RunConfig, accelerator: Accelerator) -> str | None:
    notes = []
    if config.train.reduction == "fast" and accelerator.num_processes > 1:
        notes.append("DDP sums the gradients inside backward, and the reduction has the rest")
    if accelerator.device.type == "cuda":
        notes.append("each phase ends with a wait for the GPU, which the run itself does not have")
    return "; ".join(notes) or None


def _operators(
    events: Sequence[Any], total_ms: float, *, on_gpu: bool, memory: bool
) -> list[dict[str, Any]]:
    """Return torch's operators, those first that take longest without their callees."""
    prefix = "device" if on_gpu else "cpu"
    rows = []
    for event in events:
        if event.key in PHASES or event.is_user_annotation:
            continue
        self_ms = getattr(event, f"self_{prefix}_time_total") / 1e3
        row = {
            "name": event.key,
            "calls": event.count,
            "self_ms": self_ms,
            "share": self_ms / total_ms,
            "total_ms": getattr(event, f"{prefix}_time_total") / 1e3,
        }
        if memory:
            row["allocated_bytes"] = getattr(event, f"self_{prefix}_memory_usage")
        rows.append(row)
    return sorted(rows, key=lambda row: -row["self_ms"])


def _lines(found: dict[str, Any]) -> Iterator[str]:
    count = found["processes"]
    yield (
        f"{found['steps']} steps of {found['batch_size']} images, "
        f"{count} process{'es' * (count > 1)}, on {found['device']}"
    )
    yield (
        f"{found['step_ms']:.2f} ms a step; {found['profiled_step_ms']:.2f} ms under the profiler, "
        f"which counts below"
    )
    yield f"{found['peak_memory_bytes'] / 1e6:,.0f} MB at most: {found['peak_memory_of']}"
    yield ""
    rows = [("phase", "ms a step", "share")]
    for row in found["phases"]:
        rows.append((row["name"], f"{row['step_ms']:.2f}", f"{100 * row['share']:.1f} %"))
    yield from format_table(rows)
    if found["note"]:
        yield found["note"]
    yield ""
    yield from format_table(list(_operator_rows(found["operators"])))
    yield ""
    yield f"trace: {found['trace']} (chrome://tracing, or ui.perfetto.dev)"


def _operator_rows(operators: Sequence[dict[str, Any]]) -> Iterator[tuple[str, ...]]:
    has_memory = "allocated_bytes" in operators[0]
    yield ("operator", "calls", "self ms", "share", "with callees ms", *["self MB"] * has_memory)
    for row in operators:
        yield (
            row["name"],
            f"{row['calls']:,}",
            f"{row['self_ms']:.2f}",
            f"{100 * row['share']:.1f} %",
            f"{row['total_ms']:.2f}",
            *([f"{row['allocated_bytes'] / 1e6:.1f}"] if has_memory else []),
        )
