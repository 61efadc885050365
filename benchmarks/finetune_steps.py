"""The time of a step of fine-tuning: beside a plain loop, frozen, and with cached features.

    python benchmarks/finetune_steps.py     10 minutes; nothing else should run

EfficientNet-Lite0 with ImageNet's weights, by configs/finetune.yaml, on random images in memory.
The page is benchmarks/results/finetune_steps.md.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import statistics
import tempfile
from pathlib import Path

import numpy as np
import page
import paired
from finetune_loops.steps_task import CACHED, FROZEN, PLAIN, TITLES, WHOLE, StepsTask
from turns import LAST_EPOCHS, Process

from trainer.ranks import processes

CLASSES = 10
WARM_UP_EPOCHS = 1

INTRODUCTION = """
The plain loop is a dozen lines around the same net: one process with a thread for each core, AdamW,
the whole batch in one pass. Ours has a process of one thread for each core and four micro-batches,
as by default. Both are in bf16, cut their batches out of arrays in memory and scale them; ours
also averages the weights, as the recipe says. Each trains an epoch when it is its turn; the order
turns round each round, and the ratios are within a round: their median, and the quartiles in
brackets.
""".strip()


def write_arrays(folder: Path, images: int, side: int) -> None:
    """Write random images as four NumPy files."""
    random = np.random.default_rng(0)
    for part, count in {"train": images, "test": CLASSES}.items():
        pixels = random.integers(0, 256, (count, side, side, 3), dtype=np.uint8)
        np.save(folder / f"random_{part}_features.npy", pixels)
        np.save(folder / f"random_{part}_targets.npy", np.arange(count) % CLASSES)


def measure(arguments: argparse.Namespace) -> dict[str, list[float]]:
    """Return the seconds of the contenders' epochs, a round an entry."""
    cores = processes.usable_cores()
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        write_arrays(folder, arguments.steps * arguments.batch_size, arguments.image_size)
        contenders = {}
        for contender in arguments.only:
            task = StepsTask(
                root=str(folder),
                folder=str(folder / contender),
                classes=CLASSES,
                batch_size=arguments.batch_size,
                epochs=WARM_UP_EPOCHS + arguments.rounds + LAST_EPOCHS,
            )
            words = ["-m", "finetune_loops.steps", contender, json.dumps(dataclasses.asdict(task))]
            threads = cores if contender == PLAIN else 1
            process = Process(words, [Path(__file__).parent], folder / f"{contender}.log", threads)
            contenders[contender] = stack.enter_context(process)
        for process in contenders.values():
            process.wait_until_ready()
        epochs = {name: process.epoch for name, process in contenders.items()}
        return paired.take_turns(epochs, arguments.rounds, WARM_UP_EPOCHS)


def build_lines(seconds: dict[str, list[float]], steps: int) -> list[str]:
    """Return the page's lines."""
    rows = []
    for name, measured in seconds.items():
        ratios = [
            "" if name == other else paired.spread(paired.ratios(measured, seconds[other]))
            for other in (PLAIN, WHOLE)
            if other in seconds
        ]
        rows.append([TITLES[name], f"{statistics.median(measured) / steps * 1000:.1f} ms", *ratios])
    heads = ["training", "step"]
    heads += [f"over {title}" for name, title in
              {PLAIN: "the plain loop's", WHOLE: "ours of the whole net"}.items()
              if name in seconds]  # fmt: skip
    return [*INTRODUCTION.splitlines(), "", *page.table(heads, rows)]


def main() -> None:
    """Measure, and write the page."""
    parser = page.parser(__doc__)
    parser.add_argument("--rounds", type=int, default=7, help="at least 2, as there are quartiles")
    parser.add_argument("--steps", type=int, default=6, help="of an epoch")
    parser.add_argument("--image_size", type=int, default=160)
    parser.add_argument("--batch_size", type=int, default=64)
    parser.add_argument("--only", nargs="+", choices=TITLES, default=[PLAIN, WHOLE, FROZEN, CACHED])
    page.add_output(parser, "finetune_steps.md")
    arguments = parser.parse_args()
    command = page.command_of("finetune_steps.py", arguments, parser.parse_args([]))
    lines = build_lines(measure(arguments), arguments.steps)
    page.write(arguments.output, "The time of a step of fine-tuning", command, lines)


if __name__ == "__main__":
    main()
