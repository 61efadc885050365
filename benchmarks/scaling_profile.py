"""Measure where the time of a step goes: the engine under torch's profiler.

scaling.py starts it under a launcher as `scaling_profile.py CASE OUTPUT`, CASE a JSON object;
rank 0 writes OUTPUT. The parts are the ranges that the trainer labels (profiler_ranges.py).
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import apart
import page
import torch
from quicknet_case import QUICKNET
from torch.profiler import ProfilerActivity, profile

from trainer.base import profiler_ranges, seeding
from trainer.checkpoint.writing import NoCheckpoints
from trainer.config.schema import DataConfig, ModelConfig, OptimizerConfig, RunConfig, TrainConfig
from trainer.data.dataset import Dataset, ImageSet
from trainer.data.scaling import Scaling
from trainer.network.new_model import build_model
from trainer.ranks import process_group, processes
from trainer.ranks.preemption import StopRequest
from trainer.run.console import Progress
from trainer.run.metrics_log import MetricsLog
from trainer.run.near_copy_warning import NearCopyWarning
from trainer.run.recorder import Hooks, Recorder
from trainer.training.engine import Engine

CASES: dict[str, dict[str, Any]] = {
    "lab net": {
        "model": "lab_cnn",
        "model_args": {},
        "optimizer": "adam",
        "batch_size": 100,
        "augment": "none",
    },
    "LeNet-5": {
        "model": "lenet5",
        "model_args": {},
        "optimizer": "adam",
        "batch_size": 100,
        "augment": "none",
    },
    "quicknet": {"augment": "flip_shift"},
}
"""what differs from `QUICKNET`"""

PARTS = {
    "forward": "forward pass and loss",
    "backward": "backward pass",
    "packing": "gradients and buffers into vectors and back, and the sums within a process",
    "exchange": "sums between processes, and the wait for the other one",
    "optimiser": "optimiser",
    "data": "data: order, fetching, augmentation, scaling",
    "logging": "logging: figures to the host, metrics.jsonl, and whether all go on",
    "rest": "the rest",
}
EPOCHS = 3
"""a warm-up, one without the profiler, and one with it"""


# ---------------------------------------------------------------------- in the launched processes


def main() -> None:
    """Profile on all ranks; rank 0 writes the seconds."""
    case, output = json.loads(sys.argv[1]), Path(sys.argv[2])
    config = configure(case)
    accelerator = process_group.create_accelerator(config)
    processes.set_threads(case["threads"])
    dataset = random_images(case["steps"] * case["batch_size"])
    model = build_model(config, dataset)
    engine = Engine(accelerator, config, dataset, model, NoCheckpoints(), StopRequest(), {})
    with tempfile.TemporaryDirectory() as folder:
        metrics = MetricsLog(Path(folder) / "metrics.jsonl")
        if accelerator.is_main_process:
            none = NearCopyWarning(config, dataset)  # these are not pictures
            engine.observer = Recorder(EPOCHS, Progress(), metrics, [], Hooks(), "none", none)
        train_epoch(engine)
        plain_s = train_epoch(engine)
        with (
            profile(activities=[ProfilerActivity.CPU]) as profiler,
            profiler_ranges.record(lambda: None),
        ):
            profiled_s = train_epoch(engine)
        metrics.close()
    if accelerator.is_main_process:
        found = {"plain_s": plain_s, "parts_s": sum_parts(profiler, profiled_s)}
        output.write_text(json.dumps(found | {"steps": case["steps"]}))
    process_group.leave(accelerator)


def configure(case: dict[str, Any]) -> RunConfig:
    """Return the run of a case, without evaluations."""
    return RunConfig(
        threads=case["threads"],
        data=DataConfig(validation_size=0, augment=case["augment"]),
        model=ModelConfig(case["model"], case["model_args"]),
        # So small that no weights grow: the time of a step must not depend on their values.
        optimizer=OptimizerConfig(case["optimizer"], lr=1e-5),
        train=TrainConfig(
            epochs=EPOCHS, batch_size=case["batch_size"], microbatches=case["microbatches"]
        ),
    )


def random_images(count: int) -> Dataset:
    """Draw grey images of 28 x 28 of ten classes."""
    seeding.seed_torch(0, "initialisation")
    pixels = torch.randint(256, (count, 1, 28, 28), dtype=torch.uint8)
    train = ImageSet(pixels, torch.randint(10, (count,)))
    nothing = ImageSet(pixels[:0], train.targets[:0])
    scaling = Scaling(torch.full((1, 1, 1), 127.5), torch.full((1, 1, 1), 73.9))
    names = tuple("0123456789")
    return Dataset("random", names, train, nothing, nothing, scaling, "", "memory")


def train_epoch(engine: Engine) -> float:
    """Train the next epoch; return its seconds."""
    start_s = time.perf_counter()
    engine.fit((engine.state.epoch + 1, 0))
    return time.perf_counter() - start_s


def sum_parts(profiler: profile, whole_s: float) -> dict[str, float]:
    """Return the seconds of each part, which add up to the whole."""
    spent_s = {event.key: event.cpu_time_total / 1e6 for event in profiler.key_averages()}
    found = {part: spent_s.get(part, 0.0) for part in PARTS}
    found["packing"] = spent_s["reduction"] - found["exchange"]  # which is within it
    found["rest"] = whole_s - sum(found.values())
    return found


# ---------------------------------------------------------------------- in scaling.py


def profiles(arguments: argparse.Namespace) -> dict[str, Any]:
    """Profile each model on one process and on two."""
    found: dict[str, Any] = {}
    for name in arguments.models:
        case = QUICKNET | CASES[name] | {"steps": arguments.steps}
        for count in arguments.processes:
            parts = apart.measure("benchmarks/scaling_profile.py", case, count)
            found[f"{name}, processes: {count}"] = parts
    return found


def profiles_page(figures: dict[str, Any]) -> list[str]:
    """Write a row for each part, and a column for each profile."""
    rows: list[list[str]] = [[text] for text in PARTS.values()]
    steps, ratios = ["step without the profiler"], ["time with it over without"]
    for found in figures.values():
        whole_s = sum(found["parts_s"].values())
        for row, part in zip(rows, PARTS, strict=True):
            row.append(f"{100 * found['parts_s'][part] / whole_s:.1f} %")
        steps.append(f"{found['plain_s'] / found['steps'] * 1e3:.1f} ms")
        ratios.append(f"{whole_s / found['plain_s']:.2f}")
    return [
        "The engine on random images of 28 x 28, processes of one thread; rank 0's shares of an",
        "epoch's time. The profiler makes small operations dearer than they are.",
        "",
        *page.table(["part", *figures], [*rows, steps, ratios]),
    ]


if __name__ == "__main__":
    main()
