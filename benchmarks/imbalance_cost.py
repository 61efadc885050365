"""What balanced sampling and the figures of a run cost: seconds of epochs, and of intervals.

    python benchmarks/imbalance_cost.py        5 minutes; nothing else should run

Epochs of configs/digits.yaml, on its own digits and on 100,000 random images of 8 x 8 pixels and a
hundred classes of unequal size, are trained in turns, one with data.sampling: balanced and one
without. The figures are those of made-up answers, each in a process of its own.
"""

from __future__ import annotations

import multiprocessing
import resource
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import page
import paired
from apart import REPOSITORY

from trainer.config import command_line
from trainer.config.schema import RunConfig
from trainer.ranks import process_group
from trainer.ranks.preemption import StopRequest
from trainer.run.engine_builder import build_unsaved_engine
from trainer.training import figures
from trainer.training.engine import Engine
from trainer.training.label_metrics import LabelPredictions, label_results
from trainer.training.metrics import Predictions

MANY_IMAGES, CLASSES, SIDE = 100_000, 100, 8
SAMPLINGS = ("uniform", "balanced")
ANSWERS = ((100_000, 1000), (10_000, 10))
"""images and classes"""
LABELLED = ((22_433, 14), (10_000, 100))
"""images and labels; the first are those of ChestMNIST's test images"""
_BLOCK_ROWS = 1000


def write_images(folder: Path, count: int) -> None:
    """Write random images, whose classes have fewer and fewer of them, as arrays."""
    random = np.random.default_rng(0)
    share = 1.0 / np.arange(1, CLASSES + 1)
    for part, images in (("train", count), ("test", CLASSES)):
        labels = random.choice(CLASSES, images, p=share / share.sum())
        labels[:CLASSES] = np.arange(CLASSES)
        pixels = random.integers(0, 256, (images, SIDE, SIDE), dtype=np.uint8)
        np.save(folder / f"random_{part}_features.npy", pixels)
        np.save(folder / f"random_{part}_targets.npy", labels)


def build(epochs: int, sampling: str, data: dict[str, Any]) -> Engine:
    """Return the engine of a run of configs/digits.yaml on one process of one thread."""
    config: RunConfig = command_line.combine(
        str(REPOSITORY / "configs" / "digits.yaml"),
        {
            "output_dir": "unused", "processes": 1, "threads": 1,
            "data": {**data, "sampling": sampling, "validation_size": 0},
            "train": {"epochs": epochs + 1, "kernels": "native"},
        },
    )  # fmt: skip
    return build_unsaved_engine(process_group.create_accelerator(config), config, StopRequest())


def time_epochs(epochs: int, data: dict[str, Any]) -> tuple[list[float], list[float]]:
    """Return the seconds of epochs without and with balanced sampling, in turns."""

    def epochs_of(engine: Engine) -> Iterator[float]:
        for epoch in range(1, epochs + 2):
            start_s = time.perf_counter()
            engine.fit(until=(epoch, epoch * engine.batches.steps))
            yield time.perf_counter() - start_s

    both = {sampling: epochs_of(build(epochs, sampling, data)) for sampling in SAMPLINGS}
    contenders = {sampling: partial(next, found) for sampling, found in both.items()}
    seconds: dict[str, list[float]] = paired.take_turns(contenders, epochs)
    plain, balanced = (seconds[sampling] for sampling in SAMPLINGS)
    return plain, balanced


def time_figures(images: int, classes: int) -> tuple[float, float]:
    """Return the seconds of all figures of made-up answers, and the process's largest MB."""
    random = np.random.default_rng(0)
    target = random.integers(0, classes, images)
    kept = np.float16 if classes >= 100 else np.float32
    shares = np.empty((images, classes), kept)
    loss = np.empty(images, np.float32)
    for begin in range(0, images, _BLOCK_ROWS):
        own = target[begin : begin + _BLOCK_ROWS]
        logits = random.standard_normal((len(own), classes), dtype=np.float32)
        logits[np.arange(len(own)), own] += 4
        whole = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        shares[begin : begin + len(own)] = whole
        loss[begin : begin + len(own)] = -np.log(whole[np.arange(len(own)), own])
    predicted = shares.argmax(1)
    probability = shares.max(1).astype(np.float32)
    answers = Predictions(target, predicted, probability, loss, shares)
    return _measure(lambda: figures.compute(answers, 0))


def time_label_figures(images: int, labels: int) -> tuple[float, float]:
    """Return the same of images that may have several labels."""
    random = np.random.default_rng(0)
    target = (random.random((images, labels)) < 0.1).astype(np.uint8)
    shares = 1 / (1 + np.exp(-random.normal(2.0 * target - 1))).astype(np.float32)
    answers = LabelPredictions(
        target, shares.astype(np.float32), np.zeros(images, np.float32), np.full(labels, 0.5)
    )
    return _measure(lambda: label_results(answers, list(map(str, range(labels))), 0))


def _measure(compute: Callable[[], object]) -> tuple[float, float]:
    start_s = time.perf_counter()
    compute()
    seconds = time.perf_counter() - start_s
    return seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


def main() -> None:
    """Measure and write the page."""
    parser = page.parser(__doc__)
    parser.add_argument("--epochs", type=int, default=5, help="on the many images; digits: 4 x")
    parser.add_argument("--images", type=int, default=MANY_IMAGES)
    page.add_output(parser, "imbalance_cost.md")
    arguments = parser.parse_args()
    sampled = []
    with tempfile.TemporaryDirectory() as name:
        write_images(Path(name), arguments.images)
        for what, epochs, data in (
            ("1,797 digits of ten classes", 4 * arguments.epochs, {}),
            (
                f"{arguments.images:,} images of {CLASSES} classes",
                arguments.epochs,
                {"name": "npy", "root": name},
            ),
        ):
            plain, balanced = time_epochs(epochs, data)
            ratio = paired.spread(paired.ratios(balanced, plain))
            sampled.append([what, f"{statistics.median(plain):.3f}", ratio])
    answered = []
    spawn = multiprocessing.get_context("spawn")
    for kind, measure, cases in (
        ("classes", time_figures, ANSWERS),
        ("labels, any number an image", time_label_figures, LABELLED),
    ):
        for images, count in cases:
            with ProcessPoolExecutor(1, mp_context=spawn) as pool:
                seconds, size_mb = pool.submit(measure, images, count).result()
            answered.append(
                [f"{images:,}", f"{count:,} {kind}", f"{seconds:.1f}", f"{size_mb:,.0f}"]
            )
    lines = [
        "An epoch with `data.sampling: balanced` beside one without, on one process of one thread:",
        "median, with the quartiles of the ratios of neighbours.",
        "",
        *page.table(["images", "seconds without", "with, as a multiple"], sampled),
        "",
        "All figures of a test and their intervals, of 1,000 draws (docs/figures.md):",
        "",
        *page.table(["images", "of", "seconds", "MB, the whole process"], answered),
    ]
    command = page.command_of("imbalance_cost.py", arguments, parser.parse_args([]))
    page.write(arguments.output, "What balanced sampling and the figures cost", command, lines)


if __name__ == "__main__":
    main()
