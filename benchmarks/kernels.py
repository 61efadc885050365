"""Which kernels are fast here: a step with one choice changed at a time, against what we choose.

    python benchmarks/kernels.py             5 minutes; nothing else should run

Every variant has its own process, which does a block of steps when it is its turn (turns.py).
The page is benchmarks/results/kernels.md.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import functools
import json
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import page
import paired
import torch
import torch.nn.functional as F  # noqa: N812
from quicknet_case import QUICKNET
from torch import nn
from turns import LAST_EPOCHS, Process, Turns

import models
from trainer.base import seeding
from trainer.ranks import processes
from trainer.ranks.caller_settings import keep_freed_memory, use_huge_pages

IMAGE_SIZE = (28, 28)
WARM_UP_BLOCKS = 2
BLOCK_S = 0.7
"""about how long a block of steps is"""


@dataclasses.dataclass(frozen=True)
class Variant:
    """How a step is computed; the defaults are ours."""

    model: str
    model_args: dict[str, Any]
    batch_size: int
    threads: int
    channels_last: bool = True
    fused: bool | None = True
    """None: neither fused nor foreach"""
    keeps_memory: bool = True
    huge_pages: bool = True
    compiled: bool = False
    bfloat16: bool = False


OURS = "ours: channels_last, fused Adam, freed memory kept in huge pages, float32, not compiled"
CHANGES: dict[str, dict[str, Any]] = {
    OURS: {},
    "contiguous memory format": {"channels_last": False},
    "foreach Adam": {"fused": False},
    "Adam in a loop": {"fused": None},
    "the C library's own allocator": {"keeps_memory": False, "huge_pages": False},
    "small pages": {"huge_pages": False},
    "bfloat16 autocast": {"bfloat16": True},
    "torch.compile": {"compiled": True},
    "one thread": {"threads": 1},
}
NETS: dict[str, dict[str, Any]] = {
    "the lab's net, batch 100": {"model": "lab_cnn", "model_args": {}, "batch_size": 100},
    "quicknet, pieces of 50": {
        "model": QUICKNET["model"],
        "model_args": QUICKNET["model_args"],
        "batch_size": 50,
    },
}


def build(variant: Variant) -> nn.Module:
    """Build the network, the same in every process."""
    seeding.seed_torch(0, "initialisation")
    model = models.create(
        variant.model, variant.model_args, num_classes=10, in_channels=1, image_size=IMAGE_SIZE
    )
    if variant.channels_last:
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return model


def step_of(variant: Variant) -> Callable[[], None]:
    """Return a step: forward, backward and update on one batch in memory."""
    model = build(variant)
    optimizer = torch.optim.Adam(
        model.parameters(), lr=1e-5, fused=variant.fused is True, foreach=variant.fused is False
    )
    network: Callable[[torch.Tensor], torch.Tensor] = model
    if variant.compiled:
        network = torch.compile(model)
    images = torch.randn(variant.batch_size, 1, *IMAGE_SIZE)
    targets = torch.randint(10, (variant.batch_size,))

    def step() -> None:
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=variant.bfloat16):
            loss = F.cross_entropy(network(images).float(), targets)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    return step


def work(variant: Variant, steps: int, blocks: int, turns: Turns) -> None:
    """Do a block of steps each turn, in a variant's process."""
    torch.set_num_threads(variant.threads)
    if variant.keeps_memory:
        keep_freed_memory()
    if variant.huge_pages:
        use_huge_pages()
    step = step_of(variant)
    for _ in range(2):  # torch.compile compiles at the first, and again where shapes vary
        step()
    for _ in range(blocks):
        with turns.epoch():
            for _ in range(steps):
                step()


def steps_of_block(variant: Variant) -> int:
    """Return how many steps take about `BLOCK_S`."""
    torch.set_num_threads(variant.threads)
    step = step_of(variant)
    step()
    start_s = time.perf_counter()
    for _ in range(3):
        step()
    return max(1, round(3 * BLOCK_S / (time.perf_counter() - start_s)))


def compare(
    net: dict[str, Any], changes: Sequence[str], rounds: int, threads: int
) -> dict[str, list[float]]:
    """Return each variant's time over that of ours in each round."""
    variants = {name: Variant(**({"threads": threads} | net | CHANGES[name])) for name in changes}
    steps = steps_of_block(variants[OURS])
    script = str(Path(__file__).resolve())
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        workers: dict[str, Process] = {}
        for number, (name, variant) in enumerate(variants.items()):
            task = {"variant": dataclasses.asdict(variant), "steps": steps}
            task |= {"blocks": rounds + WARM_UP_BLOCKS + LAST_EPOCHS}
            words = [script, "--worker", json.dumps(task)]
            log = Path(folder) / f"{number}.log"
            worker = Process(words, [], log, variant.threads)
            workers[name] = stack.enter_context(worker)
        for worker in workers.values():
            worker.wait_until_ready()
        epochs = {name: worker.epoch for name, worker in workers.items()}
        return over(OURS, paired.take_turns(epochs, rounds, WARM_UP_BLOCKS))


def over(ours: str, seconds: dict[str, list[float]]) -> dict[str, list[float]]:
    """Divide the times of each round by ours."""
    return {name: paired.ratios(found, seconds[ours]) for name, found in seconds.items()}


def evaluation_times(rounds: int, samples: int = 2000) -> dict[str, list[float]]:
    """Return the time of each way to evaluate quicknet, over that of ours."""
    variant = Variant(**list(NETS.values())[-1], threads=processes.usable_cores())
    torch.set_num_threads(variant.threads)
    keep_freed_memory()
    use_huge_pages()
    model, images = build(variant).eval(), torch.randn(samples, 1, *IMAGE_SIZE)

    def seconds(mode: Callable[[], Any], size: int) -> float:
        start_s = time.perf_counter()
        with mode():
            for piece in torch.split(images, size):
                model(piece)
        return time.perf_counter() - start_s

    ours = "ours: inference mode, blocks of 500"
    ways = {
        ours: (torch.inference_mode, 500),
        "no_grad": (torch.no_grad, 500),
        "with gradients": (torch.enable_grad, 500),
        "blocks of 50": (torch.inference_mode, 50),
        f"one block of {samples:,}": (torch.inference_mode, samples),
    }
    turns = {name: functools.partial(seconds, *way) for name, way in ways.items()}
    return over(ours, paired.take_turns(turns, rounds))


def table(title: str, ratios: dict[str, list[float]]) -> list[str]:
    """Write a row for each variant."""
    rows = [[name, paired.spread(found)] for name, found in ratios.items()]
    return [f"## {title}", "", *page.table(["variant", "time over ours"], rows), ""]


def main() -> None:
    """Measure and write the page; with --worker, be a variant's process."""
    parser = page.parser(__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--worker", nargs=2, help=argparse.SUPPRESS)
    page.add_output(parser, "kernels.md")
    arguments = parser.parse_args()
    if arguments.worker:
        task = json.loads(arguments.worker[0])
        turns = Turns(int(arguments.worker[1]), torch.__version__)
        work(Variant(**task["variant"]), task["steps"], task["blocks"], turns)
        return
    threads = processes.usable_cores()
    lines = [
        f"Forward, backward and step of Adam on one batch in memory, {threads} threads unless said",
        "otherwise, one choice changed at a time. The variants take turns; median, and quartiles,",
        f"of {arguments.rounds} ratios of neighbouring blocks of steps. Compiling is not counted.",
        "",
    ]
    for title, net in NETS.items():
        ratios = compare(net, list(CHANGES), arguments.rounds, threads)
        lines += table(title[0].upper() + title[1:], ratios)
    lines += table("Evaluation of quicknet", evaluation_times(arguments.rounds))
    command = page.command_of("kernels.py", arguments, parser.parse_args([]))
    page.write(arguments.output, "Which kernels are fast here", command, lines[:-1])


if __name__ == "__main__":
    main()
