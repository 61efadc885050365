"""Measure how long a finished run's model takes for an image in each format on this machine.

On the CPU: torch as it is, and each format of `export` whose packages are here, from pixels to
logits, one image at a time and in a batch. The formats come in turn in each round. Exports of the
run are taken where they are, but those of torch, whose files may contain code; they and others are
written for the time of the measurement.

example: python -m trainer bench runs/photos --threads 4
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainer.base.errors import UserError
from trainer.base.terminal import format_table, percent, print_report
from trainer.commands.export import configuration_of
from trainer.commands.options import (
    add_json_option,
    add_model_option,
    add_trained_model_argument,
    positive_integer,
)
from trainer.ranks import processes

if TYPE_CHECKING:
    from trainer.finished.trained_model import TrainedModel

MOST_THREADS, MOST_IMAGES = 1024, 2**16


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's own arguments; the others are the run's."""
    add_trained_model_argument(parser)
    parser.add_argument(
        "--batch", type=positive_integer, default=32, metavar="N", help="images; default: 32"
    )
    parser.add_argument(
        "--threads", type=positive_integer, default=1, metavar="N", help="default: 1"
    )
    parser.add_argument(
        "--rounds", type=positive_integer, default=15, metavar="N", help="default: 15"
    )
    add_model_option(parser)
    add_json_option(parser)
    parser.set_defaults(configuration=[])


def run(arguments: argparse.Namespace) -> None:
    """Print the times.

    Raises:
        UserError: there is no finished run, or its record of exports is damaged.
    """
    if arguments.threads > MOST_THREADS:
        raise UserError(f"--threads: must be at most {MOST_THREADS}, found {arguments.threads}")
    if arguments.batch > MOST_IMAGES:
        raise UserError(f"--batch: must be at most {MOST_IMAGES}, found {arguments.batch}")
    import torch

    from trainer.base import numerics, out_of_memory
    from trainer.finished import trained_model
    from trainer.finished.export import timing

    processes.set_threads(arguments.threads)
    stored = trained_model.load(arguments.run, arguments.model)
    config = configuration_of(stored.file.parent, arguments.configuration)
    batches = sorted({1, arguments.batch})
    _check_memory(stored, arguments.batch)
    with tempfile.TemporaryDirectory() as folder:
        runs, rows = timing.open_formats(stored, Path(folder), config, arguments.threads)
        what = f"--batch: {arguments.batch} images"
        with out_of_memory.explain(what, "name fewer", torch.device("cpu")):
            times, failures = timing.measure(stored, runs, batches, arguments.rounds)
    for row in rows:
        if row["format"] in failures:
            row["left_out"] = f"does not run on such a batch ({failures[row['format']]})"
        elif row["format"] in times:
            row["ms_per_image"] = {str(size): one for size, one in times[row["format"]].items()}
    here = numerics.describe(torch.device("cpu"), None)
    found = {
        "run": str(arguments.run),
        "processor": here["processor"],
        "threads": arguments.threads,
        "rounds": arguments.rounds,
        "batches": batches,
        "formats": rows,
    }
    print_report(found, _lines(found), as_json=arguments.json)


def _check_memory(stored: TrainedModel, batch: int) -> None:
    """Make sure that a batch fits into what is free, as the system would end the process.

    Raises:
        UserError: it does not.
    """
    import torch

    from trainer.data.dataset import ImageSet
    from trainer.ranks.cgroups import available_memory_bytes
    from trainer.training import evaluation_size

    shape = (1, stored.channels, *stored.image_size)
    one = ImageSet(torch.zeros(shape, dtype=torch.uint8), torch.zeros(1, dtype=torch.int64))
    needed_bytes = evaluation_size.needed_bytes(batch, stored.module, one)
    free_bytes = available_memory_bytes()
    if needed_bytes > free_bytes:
        raise UserError(
            f"--batch: {batch:,} images need about {needed_bytes / 1e9:,.1f} GB in this network, "
            f"and {free_bytes / 1e9:,.1f} GB of memory are free; name fewer"
        )


def _lines(found: dict[str, Any]) -> list[str]:
    sizes = [f"batch of {size}" if size > 1 else "one image" for size in found["batches"]]
    table = [("format", "size", "accuracy lost", *(f"{size}, ms per image" for size in sizes))]
    left_out = []
    for row in found["formats"]:
        if "left_out" in row:
            left_out.append(f"{row['format']}: {row['left_out']}")
            continue
        times = (
            f"{one['median']:.3f} ({one['low']:.3f} to {one['high']:.3f})"
            for one in row["ms_per_image"].values()
        )
        lost = percent(row["accuracy_lost"])
        table.append((row["format"], f"{row['bytes'] / 1e6:,.2f} MB", lost, *times))
    threads = f"{found['threads']} thread{'s' * (found['threads'] > 1)}"
    head = (
        f"{found['processor']}, {threads}; median of {found['rounds']} rounds (lowest to highest)"
    )
    return [head, "", *format_table(table), *[""] * bool(left_out), *left_out]
