"""Where the time of a step goes: the engine itself under torch's profiler.

Started by scaling.py under a launcher as `scaling_profile.py CASE OUTPUT`, CASE a JSON object;
rank 0 writes OUTPUT. The ranges are put around the trainer's functions from here.
"""

from __future__ import annotations

import argparse
import functools
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import apart
import torch
from recipes import DEFAULT_RECIPE
from torch.profiler import ProfilerActivity, profile, record_function

from trainer.base import seeding
from trainer.checkpoint.writing import Checkpoints
from trainer.config.schema import (
    CheckpointConfig,
    DataConfig,
    ModelConfig,
    OptimizerConfig,
    RunConfig,
    TrainConfig,
)
from trainer.data.batches import Batch
from trainer.data.dataset import Dataset, ImageSet
from trainer.data.scaling import Scaling
from trainer.network.buffers_in_passes import StepBuffers
from trainer.network.new_model import build_model
from trainer.ranks import process_group, processes
from trainer.ranks.preemption import StopRequest
from trainer.run.console import Progress
from trainer.run.metrics_log import MetricsLog
from trainer.run.recorder import Hooks, Recorder
from trainer.training import reduction, step
from trainer.training.engine import Engine

CASES: dict[str, dict[str, Any]] = {
    "lab net": {
        "model": "lab_cnn",
        "model_args": {},
        "optimizer": "adam",
        "batch_size": 100,
        "augment": "none",
    },
    "default recipe": {"augment": "flip_shift"},
}
"""what differs from the default recipe"""

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
Range = tuple[float, float, str]
"""begin and end in microseconds, and the part"""

PREFIX = "part of a step: "
EPOCHS = {"warm-up": 1, "plain": 2, "profiled": 3}


# ---------------------------------------------------------------------- in the launched processes


def main() -> None:
    """Profile on all ranks; rank 0 writes what it found."""
    case, output = json.loads(sys.argv[1]), Path(sys.argv[2])
    config = configure(case)
    accelerator = process_group.create_accelerator(config)
    processes.set_threads(case["threads"])
    dataset = random_images(case["steps"] * case["batch_size"])
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        engine = Engine(
            accelerator,
            config,
            dataset,
            build_model(config, dataset),
            Checkpoints(folder / "checkpoints", config.checkpoint),
            StopRequest(),
        )
        if accelerator.is_main_process:
            metrics = MetricsLog(folder / "metrics.jsonl")
            engine.observer = Recorder(len(EPOCHS), Progress(), metrics, [], Hooks(), "none")
        found = profile_epochs(engine)
        if accelerator.is_main_process:
            metrics.close()
            output.write_text(json.dumps(found | {"steps": case["steps"]}))
        process_group.leave(accelerator)


def configure(case: dict[str, Any]) -> RunConfig:
    """The run of a case: no evaluation and no checkpoint between the steps."""
    return RunConfig(
        threads=case["threads"],
        data=DataConfig(validation_size=0, augment=case["augment"]),
        model=ModelConfig(case["model"], case["model_args"]),
        # So small that no weights grow: the time of a step must not depend on their values.
        optimizer=OptimizerConfig(case["optimizer"], lr=1e-5),
        train=TrainConfig(
            epochs=len(EPOCHS), batch_size=case["batch_size"], microbatches=case["microbatches"]
        ),
        checkpoint=CheckpointConfig(every_epochs=None),
    )


def random_images(count: int) -> Dataset:
    """Grey images of 28 x 28 of ten classes."""
    seeding.seed_torch(0, "initialisation")
    pixels = torch.randint(256, (count, 1, 28, 28), dtype=torch.uint8)
    train = ImageSet(pixels, torch.randint(10, (count,)))
    nothing = ImageSet(pixels[:0], train.targets[:0])
    scaling = Scaling(torch.full((1, 1, 1), 127.5), torch.full((1, 1, 1), 73.9))
    names = tuple("0123456789")
    return Dataset("random", names, train, nothing, nothing, scaling, "", "memory")


def profile_epochs(engine: Engine) -> dict[str, Any]:
    """Seconds of an epoch without the profiler, and of each part of one with it."""
    train_epoch = engine._train_epoch
    found: dict[str, Any] = {}

    def timed() -> None:
        start_s = time.perf_counter()
        train_epoch()
        found["plain_s"] = time.perf_counter() - start_s

    def profiled() -> None:
        put_ranges(engine)
        with (
            profile(activities=[ProfilerActivity.CPU]) as profiler,
            record_function(PREFIX + "rest"),
        ):
            train_epoch()
        found["parts_s"] = own_seconds(ranges_of(profiler))

    runs = {EPOCHS["plain"]: timed, EPOCHS["profiled"]: profiled}

    def choose() -> None:
        runs.get(engine.state.epoch, train_epoch)()

    engine._train_epoch = choose  # type: ignore[method-assign]
    engine.fit()
    return found


def put_ranges(engine: Engine) -> None:
    """Name what the trainer's functions do; a range inside another one counts for itself alone."""
    places: list[tuple[Any, str, str]] = [
        (engine.train_step, "_backward", "forward"),
        (engine.accelerator, "backward", "backward"),
        (engine.train_step, "_take_gradients", "packing"),
        (engine.train_step, "_set_gradients", "packing"),
        (step, "pack", "packing"),
        (step, "unpack", "packing"),
        (reduction.Accumulator, "add", "packing"),
        *(
            (StepBuffers, name, "packing")
            for name in ("start_step", "restore", "changes", "finish")
        ),
        (reduction, "reduce", "exchange"),
        (engine.optimizer.optimizer, "step", "optimiser"),
        (engine.step_log, "add", "logging"),
        (engine, "_log_point", "logging"),
    ]
    for owner, name, part in places:
        setattr(owner, name, ranged(part, getattr(owner, name)))
    iter_epoch = engine.batches.iter_epoch

    def batches(epoch: int, first_step: int) -> Iterator[Batch]:
        fetch = ranged("data", functools.partial(next, iter_epoch(epoch, first_step), None))
        yield from iter(fetch, None)

    engine.batches.iter_epoch = batches  # type: ignore[method-assign]


def ranged(part: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, seen by the profiler as one part."""

    @functools.wraps(function)
    def run(*arguments: Any, **named: Any) -> Any:
        with record_function(PREFIX + part):
            return function(*arguments, **named)

    return run


def ranges_of(profiler: profile) -> list[Range]:
    """What `ranged` has marked."""
    events = profiler.events()  # type: ignore[no-untyped-call]
    return [
        (event.time_range.start, event.time_range.end, event.name.removeprefix(PREFIX))
        for event in events
        if event.name.startswith(PREFIX)
    ]


def own_seconds(ranges: Iterable[Range]) -> dict[str, float]:
    """Of each part the time outside the ranges within it, so that all of them are the whole."""
    seconds = dict.fromkeys(PARTS, 0.0)
    around: list[tuple[float, str]] = []  # the ends of the ranges that are open, and their parts
    for start_us, end_us, part in sorted(ranges, key=lambda r: (r[0], -r[1])):
        while around and around[-1][0] <= start_us:
            around.pop()
        seconds[part] += (end_us - start_us) / 1e6
        if around:
            seconds[around[-1][1]] -= (end_us - start_us) / 1e6
        around.append((end_us, part))
    return seconds


# ---------------------------------------------------------------------- in scaling.py


def profiles(arguments: argparse.Namespace) -> dict[str, Any]:
    """Each model on one process and on two."""
    found: dict[str, Any] = {}
    for name in arguments.models:
        case = DEFAULT_RECIPE | CASES[name] | {"steps": arguments.steps}
        for count in arguments.processes:
            parts = apart.measured("benchmarks/scaling_profile.py", case, count)
            found[f"{name}, processes: {count}"] = parts
    return found


def profiles_page(figures: dict[str, Any]) -> list[str]:
    """A row a part, a column a profile."""
    shares, heads = {}, {}
    for name, found in figures.items():
        whole_s = sum(found["parts_s"].values())
        shares[name] = {part: s / whole_s for part, s in found["parts_s"].items()}
        step_s = found["plain_s"] / found["steps"]
        heads[name] = (f"{step_s * 1e3:.1f} ms", f"{whole_s / found['plain_s']:.2f}")
    return [
        "The engine on random images of 28 x 28, processes of one thread; rank 0's shares of an",
        "epoch's time. The profiler makes small operations dearer than they are.",
        "",
        f"| part | {' | '.join(figures)} |",
        f"| --- |{' --- |' * len(figures)}",
        *(
            f"| {text} | {' | '.join(f'{100 * shares[n][part]:.1f} %' for n in figures)} |"
            for part, text in PARTS.items()
        ),
        f"| step without the profiler | {' | '.join(heads[name][0] for name in figures)} |",
        f"| time with it over without | {' | '.join(heads[name][1] for name in figures)} |",
    ]


if __name__ == "__main__":
    main()
