"""Photographs: the speed of the loader, of a training that reads them, and of a start.

    python benchmarks/photos.py loaders --root DIR      batches alone, beside other loaders
    python benchmarks/photos.py training --root DIR     a small net, from files and from memory
    python benchmarks/photos.py start --root DIR        until the first step, first and later
    python benchmarks/photos.py million --root DIR      start and memory with very many pictures
    python benchmarks/photos.py epoch --root DIR        memory in a whole epoch of them

DIR has train/CLASS/*.jpg, for the last two what photo_files.py writes; nothing else should run.
torchvision and timm come, next to a CPU build of torch, from the folder `timm` of the environment,
where launch/environment.sh puts them. Each command puts its figures into
benchmarks/results/photos.json; photos.md is written from all.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import functools
import itertools
import json
import os
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any

import apart
import page
import paired
import photo_million
import yaml
from photo_loaders import CACHED, LOADERS, ORIGINALS, OURS, Place, Task
from photo_loaders.others import AREA
from turns import LAST_EPOCHS, Process

from trainer.ranks import processes
from trainer.ranks.exit_codes import STOPPED_ON_REQUEST

IN_MEMORY: Place = "memory"
PLACES: dict[Place, str] = {
    IN_MEMORY: "in memory",
    "disk": "from the cache on the disk",
    "none": "from the originals",
}
"""values of data.cache, and what the page calls them"""
TRAINED_EPOCHS = 3

TIMM = Path(sys.prefix) / "timm"
WARM_UP_EPOCHS = 1
THREADS = 1
"""of the process that takes the batches, as `threads` is by default"""

INTRODUCTION = """
Photographs are cropped at random, resized to a square, mirrored half of the time and scaled.
Contenders take turns, by an epoch each, or by a training of three; ratios are formed within a
round: their median, and the quartiles in brackets. The first epoch of a process is not counted: in
it our caches are filled, and the system has read every file once.
""".strip()


def search_path(name: str) -> list[Path]:
    """Return where a loader's process looks for modules."""
    timm = [TIMM] if name not in OURS and TIMM.is_dir() else []
    return [Path(__file__).parent, *timm]


def is_installed(name: str) -> bool:
    """Return whether a loader's process can import its package."""
    places = [*map(str, (apart.REPOSITORY, *search_path(name))), *sys.path]
    return PathFinder.find_spec(LOADERS[name].module, places) is not None


@contextlib.contextmanager
def started(
    places: Mapping[str, Place], arguments: argparse.Namespace
) -> Iterator[dict[str, Process]]:
    """Start a process for each loader's name.

    Args:
        places: data.cache of each, where it is ours.
    """
    with (
        tempfile.TemporaryDirectory(prefix="photos-") as folder,
        contextlib.ExitStack() as stack,
    ):
        found = {}
        for name, place in places.items():
            task = Task(
                root=str(Path(arguments.root).resolve()),
                image_size=arguments.image_size,
                batch_size=arguments.batch_size,
                workers=arguments.workers,
                epochs=WARM_UP_EPOCHS + arguments.rounds + LAST_EPOCHS,
                seed=0,
                folder=str(Path(folder) / name),
                cache=place,
            )
            words = ["-m", "photo_loaders", name, json.dumps(dataclasses.asdict(task))]
            process = Process(words, search_path(name), Path(folder) / f"{name}.log", THREADS)
            found[name] = stack.enter_context(process)
        yield found


def task_of(arguments: argparse.Namespace) -> dict[str, int]:
    """Return what an epoch is."""
    return {
        "images": count_photos(arguments.root),
        "image_size": arguments.image_size,
        "batch_size": arguments.batch_size,
        "workers": arguments.workers,
    }


def count_photos(root: str) -> int:
    """Return how many files train/CLASS/ has."""
    return sum(1 for path in (Path(root) / "train").glob("*/*") if path.is_file())


# ---------------------------------------------------------------------- the measurements


def measure_loaders(arguments: argparse.Namespace) -> dict[str, Any]:
    """Measure batches alone."""
    places = {
        name: one.cache or "none"
        for name, one in LOADERS.items()
        if name in (arguments.only or LOADERS) and is_installed(name)
    }
    with started(places, arguments) as contenders:
        versions = {name: process.wait_until_ready() for name, process in contenders.items()}
        epochs = {name: process.epoch for name, process in contenders.items()}
        seconds = paired.take_turns(epochs, arguments.rounds, WARM_UP_EPOCHS)
        for process in contenders.values():
            process.finish()
    left_out = [name for name in LOADERS if not is_installed(name)]
    return {**task_of(arguments), "seconds": seconds, "versions": versions, "left_out": left_out}


def measure_training(arguments: argparse.Namespace) -> dict[str, Any]:
    """Measure epochs of a small net, on a process of one thread for each core."""
    with tempfile.TemporaryDirectory(prefix="photos-") as folder:
        numbers = itertools.count()

        def train(place: Place) -> float:
            run = Path(folder) / f"run-{next(numbers)}"
            recipe = Path(folder) / f"{place}.yaml"
            recipe.write_text(yaml.safe_dump(training_recipe(place, folder, arguments)))
            words = {"root": str(Path(arguments.root).resolve()), "processes": arguments.workers}
            apart.run(apart.train_command(recipe, run, "--threads", "1", **words))
            events = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
            return min(
                float(one["seconds"])
                for one in events
                if one["event"] == "epoch" and one["epoch"] > WARM_UP_EPOCHS
            )

        contenders: dict[str, Callable[[], float]] = {
            place: functools.partial(train, place)
            for place in PLACES
            if place in (arguments.only or PLACES)
        }
        seconds = paired.take_turns(contenders, arguments.rounds, warm_up=0)
    return {**task_of(arguments), "seconds": seconds}


def training_recipe(place: Place, folder: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the configuration of a training whose steps take longer than its photographs."""
    return {
        "data": {
            "name": "folder",
            "image_size": arguments.image_size,
            "validation_size": 0,
            "augment": [{"random_resized_crop": {"area": list(AREA)}}, "flip"],
            "scaling": "imagenet",
            "cache": place,
            "cache_dir": str(Path(folder) / "cache"),
        },
        "model": {"name": "quicknet"},
        "train": {
            "epochs": TRAINED_EPOCHS,
            "batch_size": arguments.batch_size,
            "microbatches": arguments.workers,
            "precision": "bf16",
        },
        "checkpoint": {"every_epochs": None},
    }


def measure_start(arguments: argparse.Namespace) -> dict[str, Any]:
    """Measure the seconds until the first step is done and saved, with and without our cache."""
    with tempfile.TemporaryDirectory(prefix="photos-") as folder:
        numbers = iter(range(10**6))

        def start(cache: str) -> float:
            run = Path(folder) / f"run-{next(numbers)}"
            os.environ["XDG_CACHE_HOME"] = str(Path(folder) / cache)
            words = ["--train.max_seconds", "1e-9"]
            command = apart.train_command(
                "photos", run, *words, root=arguments.root, processes=None
            )
            return apart.run(command, STOPPED_ON_REQUEST)[1]

        contenders: dict[str, Callable[[], float]] = {
            "imports": lambda: apart.run([sys.executable, "-c", "import torch, accelerate"])[1],
            "first": lambda: start(f"cache-{next(numbers)}"),
            "later": lambda: start("cache"),
        }
        seconds = paired.take_turns(contenders, arguments.rounds, WARM_UP_EPOCHS)
    return {"images": count_photos(arguments.root), "seconds": seconds}


# ---------------------------------------------------------------------- the page


def loaders_section(figures: dict[str, Any]) -> list[str]:
    """Return the lines on batches alone."""
    seconds, others = figures["seconds"], [name for name in figures["seconds"] if name not in OURS]
    lines = [task_line(figures), ""]
    if figures["left_out"]:
        titles = ", ".join(LOADERS[name].title for name in figures["left_out"])
        lines += [f"Left out, as not installed: {titles}.", ""]
    rows = []
    for name, own in seconds.items():
        ratios = [
            paired.spread(paired.ratios(seconds[name], seconds[ours])) if name in others else ""
            for ours in (ORIGINALS, CACHED)
        ]
        title = LOADERS[name].title
        if name in others:
            title += f" {figures['versions'][name]}"
        rows.append([title, f"{figures['images'] / statistics.median(own):,.0f}", *ratios])
    heads = ["loader", "images/s", "ours from the originals over it", "ours from the disk's cache"]
    return [*lines, *page.table(heads, rows)]


def training_section(figures: dict[str, Any]) -> list[str]:
    """Return the lines on epochs of a small net."""
    seconds = figures["seconds"]
    rows = [
        [
            title,
            f"{figures['images'] / statistics.median(seconds[name]):,.0f}",
            paired.spread(paired.ratios(seconds[IN_MEMORY], seconds[name])),
        ]
        for name, title in PLACES.items()
        if name in seconds
    ]
    heads = ["photographs", "images/s", "speed, over that from memory"]
    return [task_line(figures), "", *page.table(heads, rows)]


def start_section(figures: dict[str, Any]) -> list[str]:
    """Return the lines on starts."""
    titles = {
        "imports": '`python -c "import torch, accelerate"`',
        "first": "first start: nothing is known of the photographs",
        "later": "later start",
    }
    rows = [
        [title, f"{statistics.median(figures['seconds'][name]):.2f} s"]
        for name, title in titles.items()
    ]
    text = (
        f"`configs/photos.yaml` on {figures['images']:,} photographs to train on, by "
        "`python train.py --config configs/photos.yaml --data.root DIR`, which starts a process "
        "for each core: whole processes, until the first optimiser step is done and saved."
    )
    return [text, "", *page.table(["process", "time"], rows)]


def task_line(figures: dict[str, Any]) -> str:
    """Say what an epoch is."""
    return (
        f"{figures['images']:,} photographs an epoch, {figures['image_size']} pixels, batches of "
        f"{figures['batch_size']}, {figures['workers']} worker processes, "
        "or threads, or processes of a thread."
    )


STUDIES = {
    "loaders": ("Batches alone", measure_loaders, loaders_section),
    "training": ("Training a small net", measure_training, training_section),
    "start": ("Until the first step", measure_start, start_section),
    "million": ("A million small pictures", photo_million.measure, photo_million.section),
    "epoch": ("An epoch of them", photo_million.measure_epoch, photo_million.epoch_section),
}


def build_page(figures: page.Figures) -> list[str]:
    """Return the page of all that was measured so far."""
    lines = ["# Photographs", "", *INTRODUCTION.splitlines()]
    for name, (title, _, section) in STUDIES.items():
        if name in figures:
            lines += ["", *page.section(title, figures[name], section(figures[name]))]
    return lines


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = page.parser(__doc__)
    parser.add_argument("study", choices=STUDIES)
    parser.add_argument("--root", required=True, help="folder with train/CLASS/*.jpg")
    parser.add_argument(
        "--only",
        nargs="+",
        choices=[*LOADERS, *PLACES],
        help="some loaders, or places of data.cache",
    )
    parser.add_argument("--rounds", type=int, default=5, help="at least 2, as there are quartiles")
    parser.add_argument(
        "--seconds", type=float, default=120.0, help="of training, of million and epoch"
    )
    parser.add_argument("--workers", type=int, default=processes.usable_cores())
    parser.add_argument("--image_size", type=int, default=224)
    parser.add_argument("--batch_size", type=int, default=64)
    page.add_output(parser, "photos.json")
    return parser


def main() -> None:
    """Measure, and write the page."""
    arguments = parser().parse_args()
    name = arguments.study
    usual = parser().parse_args([name, "--root", ""])
    command = page.command_of(f"photos.py {name} --root DIR", arguments, usual, "study")
    measured = page.measure(command, functools.partial(STUDIES[name][1], arguments))
    figures = page.read_figures(arguments.output) | {name: measured}
    page.write_figures(arguments.output, figures, build_page(figures))


if __name__ == "__main__":
    main()
