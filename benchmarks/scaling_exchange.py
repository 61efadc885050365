"""Time the exchange between processes by itself: ours in memory and by sockets, and gloo's own.

scaling.py starts it under a launcher as `scaling_exchange.py CASE OUTPUT`, CASE a JSON object;
rank 0 writes OUTPUT.
"""

from __future__ import annotations

import argparse
import functools
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import apart
import page
import paired
import torch
import torch.distributed as dist

from trainer.base.flat_buffer import BufferLayout
from trainer.config.schema import RunConfig
from trainer.data.sampling import rank_microbatches
from trainer.ranks import mailboxes, process_group
from trainer.training import exchange
from trainer.training.reduction import subtrees

WAYS = ("in pieces", "by sockets", "whole", "all-reduce")
"""ours, in memory; the same by gloo's sockets; by these, and without cutting (recursive doubling);
gloo's, in an order of its own"""


# ---------------------------------------------------------------------- in the launched processes


def main() -> None:
    """Measure on all ranks; rank 0 writes the seconds of an exchange in each round."""
    case, output = json.loads(sys.argv[1]), Path(sys.argv[2])
    accelerator = process_group.create_accelerator(RunConfig())
    torch.set_num_threads(1)
    mailboxes.open_for_all(accelerator, RunConfig().timeout_seconds)
    assert mailboxes.current(), "nothing can be shared here"
    found = {str(floats): measure(floats, case) for floats in case["floats"]}
    if accelerator.is_main_process:
        output.write_text(json.dumps(found))
    process_group.leave(accelerator)


def measure(floats: int, case: dict[str, Any]) -> dict[str, list[float]]:
    """Return the seconds of an exchange of this many floats in each round, by its way."""
    processes = dist.get_world_size()
    leaves = processes * case["each"]
    vector = torch.zeros(floats)
    layout = BufferLayout([vector])
    block = rank_microbatches(dist.get_rank(), processes, leaves)
    nodes = [(node, layout.pack([vector])) for node in subtrees(leaves, block)]
    times = max(2, min(50, int(2e7 / floats / processes)))
    small_bytes = exchange.SMALL_BYTES

    def along_the_tree(small: int) -> None:
        exchange.SMALL_BYTES = small
        exchange.sum_over_ranks(layout, nodes, leaves)

    def by_sockets(small: int) -> None:
        with patch.object(mailboxes, "current", lambda: None):
            along_the_tree(small)

    ways: dict[str, Callable[[], object]] = {
        "in pieces": lambda: along_the_tree(small_bytes),
        "by sockets": lambda: by_sockets(small_bytes),
        "whole": lambda: by_sockets(layout.size_bytes + 1),
        "all-reduce": lambda: dist.all_reduce(vector),
    }

    def block_s(exchange_once: Callable[[], object]) -> float:
        dist.barrier()
        start_s = time.perf_counter()
        for _ in range(times):
            exchange_once()
        dist.barrier()
        return (time.perf_counter() - start_s) / times

    blocks = {name: functools.partial(block_s, way) for name, way in ways.items()}
    return paired.take_turns(blocks, case["rounds"])


# ---------------------------------------------------------------------- in the benchmark


def exchanges(arguments: argparse.Namespace) -> dict[str, Any]:
    """Measure each number of processes, with a micro-batch for each, and the last with three."""
    cases = [(count, 1) for count in arguments.processes] + [(arguments.processes[-1], 3)]
    found = {}
    for processes, each in cases:
        case = {"floats": arguments.floats, "each": each, "rounds": arguments.rounds}
        seconds = apart.measure("benchmarks/scaling_exchange.py", case, processes)
        found[f"{processes} x {each}"] = seconds
        print(processes, each, seconds, flush=True)
    return found


def exchanges_page(figures: dict[str, Any]) -> list[str]:
    """Write a row for each number of processes and each size."""
    rows = []
    for case, sizes in figures.items():
        processes, each = case.split(" x ")
        for floats, ways in sizes.items():
            ratios = zip(ways["by sockets"], ways["in pieces"], strict=True)
            rows.append(
                [
                    processes,
                    each,
                    f"{int(floats):,}",
                    *(f"{1e3 * statistics.median(ways[way]):.2f} ms" for way in WAYS),
                    paired.spread([sockets / memory for sockets, memory in ratios]),
                ]
            )
    heads = ["processes", "micro-batches of each", "floats", *WAYS, "sockets over memory"]
    return [
        "The exchange of a vector by itself, processes of one thread on one machine, taking turns.",
        "*In pieces* is the trainer's, through shared memory; *by sockets* the same through",
        "gloo's connections, as between machines; *whole* by these, without cutting (recursive",
        "doubling); the all-reduce is gloo's, whose order of additions depends on their number.",
        "",
        *page.table(heads, rows),
    ]


if __name__ == "__main__":
    main()
