"""Images per second of Lockstep and of other trainers, and against the compute bound.

    python benchmarks/throughput.py [--case NAME ...] [--root DIR] [--photos DIR]

Nothing else should run. The other trainers come with `pip install -c constraints.txt -e
'.[benchmarks]'`, or from the folder --packages, where benchmarks/README.md puts them; timm and
torchvision, next to a CPU build of torch, from the folder `timm` of the environment, where
launch/environment.sh puts them. Trainers that are not installed are left out, and the page says so.
--photos has train/CLASS/*.jpg; without it the cases of photographs are left out.

Each trainer has a process of its own (contenders/), which trains one epoch each time that it is its
turn (turns.py); after some rounds all are started again. Each case puts its figures into
benchmarks/results/throughput.json as it ends, in the place of older ones; throughput.md is written
from all that are there. After a measurement that was stopped, --case names those that are missing.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import json
import sys
import tempfile
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any, get_args

import apart
import page
import paired
from contenders import BOUNDS, CONTENDERS, PEERS, RANKS
from throughput_cases import CASES, Case
from throughput_page import build_page
from turns import LAST_EPOCHS, Process

from trainer.config.data_names import DataName
from trainer.ranks import processes

TIMM = Path(sys.prefix) / "timm"
WARM_UP_EPOCHS = 1
"""of each process"""
WORKERS = 2
"""of the others' loaders of photographs"""


def search_path(name: str, *, photos: bool, packages: Path | None) -> list[Path]:
    """Return where a contender's process looks for modules.

    Args:
        photos: whether it reads photographs, which the others do by torchvision.
        packages: of the other trainers.
    """
    found = [Path(__file__).parent]
    if name in PEERS and packages:
        found.append(packages)
    if TIMM.is_dir() and (name == "timm_loop" or (photos and name not in BOUNDS)):
        found.append(TIMM)
    return found


def is_installed(name: str, *, photos: bool, packages: Path | None) -> bool:
    """Return whether a contender's process can import its package."""
    search = search_path(name, photos=photos, packages=packages)
    places = [*map(str, (apart.REPOSITORY, *search)), *sys.path]
    needed = [CONTENDERS[name].module, *(["torchvision"] if photos and name not in BOUNDS else [])]
    return all(PathFinder.find_spec(module, places) is not None for module in needed)


def measure(key: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Measure all rounds of a case; return its figures, without what `page.measure` adds."""
    case = CASES[key]
    images = arguments.images or case.images
    photos = case.image_size is not None
    names = [
        name
        for name in CONTENDERS
        if is_installed(name, photos=photos, packages=arguments.packages)
    ]
    seconds: dict[str, list[float]] = {name: [] for name in names}
    versions: dict[str, str] = {}
    for _ in range(arguments.groups):
        measured, versions = measure_group(names, case, images, arguments)
        for name in names:
            seconds[name] += measured[name]
    return {
        "case": key,
        "images": images,
        "batch_size": case.batch_size,
        "threads": arguments.threads,
        "seconds": seconds,
        "versions": versions,
        "left_out": [name for name in CONTENDERS if name not in names],
        "groups": arguments.groups,
    }


def measure_group(
    names: list[str], case: Case, images: int, arguments: argparse.Namespace
) -> tuple[dict[str, list[float]], dict[str, str]]:
    """Start a process for each contender; return their seconds and the packages' versions."""
    with (
        tempfile.TemporaryDirectory(prefix="throughput-") as folder,
        contextlib.ExitStack() as stack,
    ):
        contenders = {
            name: stack.enter_context(start(name, case, images, Path(folder), arguments))
            for name in names
        }
        versions = {
            CONTENDERS[name].package: contender.wait_until_ready()
            for name, contender in contenders.items()
        }
        epochs = {name: contender.epoch for name, contender in contenders.items()}
        seconds = paired.take_turns(epochs, arguments.rounds, WARM_UP_EPOCHS)
        for contender in contenders.values():
            contender.finish()
    return seconds, versions


def start(
    name: str, case: Case, images: int, folder: Path, arguments: argparse.Namespace
) -> Process:
    """Start a contender's process, which gets ready."""
    threads = 1 if name in RANKS else arguments.threads
    photos = case.image_size is not None
    task = {
        "model": case.model,
        "model_args": case.model_args,
        "batch_size": case.batch_size,
        "images": images,
        "epochs": WARM_UP_EPOCHS + arguments.rounds + LAST_EPOCHS,
        "threads": threads,
        "folder": str(folder / name),
        "augment": case.augment,
        "image_size": case.image_size,
        "weights": case.weights,
        "workers": WORKERS if photos else 0,
        "data": "folder" if photos else arguments.data,
        "root": str(arguments.photos.resolve()) if photos else arguments.root,
    }
    words = ["-m", "contenders", name, json.dumps(task)]
    search = search_path(name, photos=photos, packages=arguments.packages)
    return Process(words, search, folder / f"{name}.log", threads)


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = page.parser(__doc__)
    parser.add_argument("--case", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument(
        "--groups", type=int, default=3, help="how often each trainer is started for a case"
    )
    parser.add_argument(
        "--rounds", type=int, default=3, help="of each group; at least 2, as there are quartiles"
    )
    parser.add_argument(
        "--threads", type=int, default=processes.usable_cores(), help="of each trainer"
    )
    parser.add_argument("--images", type=int, help="of an epoch; each case has its own number")
    parser.add_argument("--data", choices=get_args(DataName), default="fashion_mnist")
    parser.add_argument("--root", help="data.root of the images")
    parser.add_argument("--photos", type=Path, metavar="DIR", help="photographs: train/CLASS/*.jpg")
    parser.add_argument("--packages", type=Path, metavar="DIR", help="of the other trainers")
    page.add_output(parser, "throughput.json")
    return parser


def parse() -> argparse.Namespace:
    """Parse the command line and refuse what is not possible."""
    arguments = parser().parse_args()
    if arguments.rounds < 2:
        parser().error("--rounds: quartiles need at least 2")
    sizes = {CASES[key].batch_size for key in arguments.case}
    if arguments.images and any(arguments.images % size for size in sizes):
        parser().error(f"--images: must be a multiple of the batch size, {max(sizes)}")
    return arguments


def main() -> None:
    """Measure one case after the other, and write each as it ends."""
    arguments = parse()
    for key in arguments.case:
        case = CASES[key]
        if case.image_size and not arguments.photos:
            print(f"{key}: left out, as --photos is not given")
            continue
        command = page.command_of(
            f"throughput.py --case {key}" + (" --photos DIR" if case.image_size else ""),
            arguments,
            parser().parse_args([]),
            "case",
            "photos",
            "packages",
        )
        measured = page.measure(command, functools.partial(measure, key, arguments))
        figures = page.read_figures(arguments.output) | {key: measured}
        page.write_figures(arguments.output, figures, build_page(figures))


if __name__ == "__main__":
    main()
