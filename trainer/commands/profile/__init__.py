"""Show where the time of a run's steps goes: by phase, by operator, and as a trace.

After a warm-up, so many steps of the run are timed as they are, and as many again under torch's
profiler. Keys of the configuration follow, as for train.py. The run's folder is neither read nor
changed; the steps are the run's first ones. Behind a launcher rank 0 reports. Open the trace in
chrome://tracing or at ui.perfetto.dev. "self" is without what an operator calls, and its MB are
those that it allocates less those that it frees.

example: python -m trainer profile --config configs/digits.yaml --steps 5 --memory
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from trainer.base.errors import UserError
from trainer.base.terminal import format_table, print_report
from trainer.commands.options import add_json_option, positive_integer
from trainer.config import command_line
from trainer.ranks import processes


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's own arguments; the others are the configuration's."""
    parser.add_argument(
        "--steps", type=positive_integer, default=10, metavar="N", help="to profile; default: 10"
    )
    parser.add_argument(
        "--warmup", type=positive_integer, default=5, metavar="N", help="steps before; default: 5"
    )
    parser.add_argument(
        "--rows",
        type=positive_integer,
        default=15,
        metavar="N",
        help="operators to show; default: 15",
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
    _check_place(arguments.trace)
    # Read when torch is imported: else the profiler tells of itself, and with --memory of blocks
    # that are older than the profile.
    os.environ.setdefault("KINETO_LOG_LEVEL", "6")
    if arguments.memory:
        os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    from trainer.commands.profile.recording import profile

    found = profile(
        config, arguments.warmup, arguments.steps, arguments.trace, memory=arguments.memory
    )
    if found is None:  # another rank
        return
    if not arguments.json:
        found["operators"] = found["operators"][: arguments.rows]
    print_report(found, _lines(found), as_json=arguments.json)


def _check_place(trace: Path) -> None:
    folder = trace.parent
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        raise UserError(f"--trace: {folder} is no folder that can be written")
    if trace.is_dir():
        raise UserError(f"--trace: {trace} is a folder; name a file in it")


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
