"""Images per second of Lockstep and of other trainers, and against the compute bound.

    python benchmarks/throughput.py [--case NAME ...] [--root DIR]     nothing else should run

The other trainers come with `pip install -c constraints.txt -e '.[benchmarks]'`; timm, next
to a CPU build of torch, from the folder `timm` of the environment, where launch/environment.sh puts
it. Trainers that are not installed are left out, and the page says so.

Each trainer has a process of its own (contenders/), which trains one epoch each time that it is its
turn (turns.py). Each case puts its figures into benchmarks/results/throughput.json; throughput.md
is written from all that are there.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import functools
import json
import statistics
import sys
import tempfile
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any, Literal, get_args

import apart
import page
import paired
from contenders import BOUND, CONTENDERS, OURS
from recipes import DEFAULT_RECIPE
from turns import Process

from trainer.config.data_names import DataName
from trainer.ranks import processes

TIMM = Path(sys.prefix) / "timm"
WARM_UP_EPOCHS = 2

TITLE = "Images per second, compared with other trainers"
INTRODUCTION = f"""
Only training: no evaluation, no checkpoints, no progress bars. All have the same model, the same
images in memory, batch size, Adam at a constant 1e-3, float32 and threads. Each trainer has its own
process and trains one epoch when it is its turn; the order turns round each round, the first
{WARM_UP_EPOCHS} rounds are not counted, and ratios are formed within a round: their median, and the
quartiles in brackets.

Ours is the engine as `train.py` builds it, with its log and its digests; like the others it has the
whole batch in one piece (`train.microbatches: 1`, which null is on one process). The others are
written as their documentation shows it (`benchmarks/contenders/`, with the sources), without what
an argument turns off: log files, clipping, schedules, workers. The compute bound is forward,
backward and step on one batch in memory, with channels_last, fused Adam and the allocator set, and
nothing else; it augments nothing either.

Augmentation is a horizontal flip and a shift of up to 2 pixels. The others do it image by image as
torchvision's RandomHorizontalFlip and RandomCrop with padding do, written only with torch, as
torchvision cannot be imported next to a CPU build of torch.
""".strip()


@dataclasses.dataclass(frozen=True)
class Case:
    """A row of the page: a task."""

    title: str
    model: str
    batch_size: int
    images: int
    """of an epoch, which should take one to three seconds"""
    model_args: dict[str, Any] = dataclasses.field(default_factory=dict)
    augment: Literal["none", "flip_shift"] = "none"


LAB = Case("The lab's net", "lab_cnn", batch_size=100, images=10_000)
DEFAULT = Case(
    "The default recipe's net",
    DEFAULT_RECIPE["model"],
    batch_size=DEFAULT_RECIPE["batch_size"],
    images=3_000,
    model_args=DEFAULT_RECIPE["model_args"],
)
CASES = {
    "lab_cnn": LAB,
    "lenet5": Case("LeNet-5", "lenet5", batch_size=100, images=20_000),
    "quicknet": DEFAULT,
    "wide_resnet": Case(
        "WideResNet-16-4",
        "wide_resnet",
        batch_size=50,
        images=150,
        model_args={"depth": 16, "widen_factor": 4},
    ),
    "lab_cnn_augmented": dataclasses.replace(
        LAB, title="The lab's net, with augmentation", augment="flip_shift"
    ),
    "quicknet_augmented": dataclasses.replace(
        DEFAULT, title="The default recipe's net, with augmentation", augment="flip_shift"
    ),
}


@dataclasses.dataclass(frozen=True)
class Figures:
    """An entry of throughput.json."""

    case: str
    images: int
    batch_size: int
    threads: int
    seconds: dict[str, list[float]]
    """of each contender's epochs, a round an entry"""
    versions: dict[str, str]
    left_out: list[str]
    command: str
    minutes: float
    machine: str

    def images_per_second(self, name: str) -> list[float]:
        """Return the images per second of each round."""
        return [self.images / seconds for seconds in self.seconds[name]]

    def ratios(self, name: str) -> list[float]:
        """Return our throughput over that of another in each round."""
        return paired.ratios(self.seconds[name], self.seconds[OURS])

    def best_peer(self) -> str:
        """Return the contender that comes nearest to us."""
        peers = [name for name in self.seconds if name not in (OURS, BOUND)]
        return min(peers, key=lambda name: statistics.median(self.ratios(name)))


def search_path(name: str) -> list[Path]:
    """Return where a contender's process looks for modules."""
    timm = [TIMM] if name == "timm_loop" and TIMM.is_dir() else []
    return [Path(__file__).parent, *timm]


def is_installed(name: str) -> bool:
    """Return whether a contender's process can import its package."""
    places = [*map(str, (apart.REPOSITORY, *search_path(name))), *sys.path]
    return PathFinder.find_spec(CONTENDERS[name].module, places) is not None


def measure(key: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Measure all rounds of a case; return its figures, without what `page.measure` adds."""
    case = CASES[key]
    images = arguments.images or case.images
    names = [name for name in CONTENDERS if is_installed(name)]
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
    return {
        "case": key,
        "images": images,
        "batch_size": case.batch_size,
        "threads": arguments.threads,
        "seconds": seconds,
        "versions": versions,
        "left_out": [name for name in CONTENDERS if name not in names],
    }


def start(
    name: str, case: Case, images: int, folder: Path, arguments: argparse.Namespace
) -> Process:
    """Start a contender's process, which gets ready."""
    task = {
        "model": case.model,
        "model_args": case.model_args,
        "batch_size": case.batch_size,
        "images": images,
        "epochs": WARM_UP_EPOCHS + arguments.rounds,
        "threads": arguments.threads,
        "folder": str(folder / name),
        "augment": case.augment,
        "data": arguments.data,
        "root": arguments.root,
    }
    words = ["-m", "contenders", name, json.dumps(task)]
    return Process(words, search_path(name), folder / f"{name}.log", arguments.threads)


def build_page(figures: page.Figures) -> list[str]:
    """Return the page of all cases so far."""
    measured = [Figures(**figures[name]) for name in CASES if name in figures]
    rows = []
    for one in measured:
        best, speed = one.best_peer(), statistics.median(one.images_per_second(OURS))
        over_best = f"{paired.spread(one.ratios(best))}, {CONTENDERS[best].title}"
        bound = paired.spread(one.ratios(BOUND))
        rows.append([CASES[one.case].title, f"{speed:,.0f}", over_best, bound])
    heads = ["case", "images/s", "over the best of the others", "over the compute bound"]
    lines = [f"# {TITLE}", "", "    python benchmarks/throughput.py", "", INTRODUCTION, ""]
    lines += [*page.table(heads, rows), "", *overview(measured)]
    return [*lines, *(line for one in measured for line in section(one))]


def overview(measured: list[Figures]) -> list[str]:
    """Compare our throughput with each of the others, in all cases; the README has it too."""
    rows = [
        [
            CONTENDERS[name].title,
            *(
                f"{statistics.median(one.ratios(name)):.2f}" if name in one.seconds else ""
                for one in measured
            ),
        ]
        for name in CONTENDERS
        if name not in (OURS, BOUND)
    ]
    titles = [CASES[one.case].title for one in measured]
    return page.table(["Lockstep's images/s over those of", *titles], rows)


def section(figures: Figures) -> list[str]:
    """Return the section of one case."""
    case = CASES[figures.case]
    lines = [
        f"{figures.threads} threads, "
        f"`{case.model}`, {figures.images:,} images an epoch in batches of {figures.batch_size}.",
        f"With {', '.join(f'{name} {number}' for name, number in figures.versions.items())}.",
    ]
    if figures.left_out:
        titles = ", ".join(CONTENDERS[name].title for name in figures.left_out)
        lines += [f"Left out, as not installed: {titles}."]
    rows = []
    for name in (name for name in CONTENDERS if name in figures.seconds):
        speeds = figures.images_per_second(name)
        numbers = (min(speeds), statistics.median(speeds), max(speeds))
        ratio = "" if name == OURS else paired.spread(figures.ratios(name))
        rows.append([CONTENDERS[name].title, *(f"{number:,.0f}" for number in numbers), ratio])
    heads = ["trainer", "images/s: least", "median", "most", "ours over it"]
    lines += ["", *page.table(heads, rows)]
    return ["", *page.section(case.title, dataclasses.asdict(figures), lines)]


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = page.parser(__doc__)
    parser.add_argument("--case", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--rounds", type=int, default=7, help="at least 2, as there are quartiles")
    parser.add_argument(
        "--threads", type=int, default=processes.usable_cores(), help="of each trainer"
    )
    parser.add_argument("--images", type=int, help="of an epoch; each case has its own number")
    parser.add_argument("--data", choices=get_args(DataName), default="fashion_mnist")
    parser.add_argument("--root", help="data.root of the images")
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
        command = page.command_of(
            f"throughput.py --case {key}", arguments, parser().parse_args([]), "case"
        )
        measured = page.measure(command, functools.partial(measure, key, arguments))
        figures = page.read_figures(arguments.output) | {key: measured}
        page.write_figures(arguments.output, figures, build_page(figures))


if __name__ == "__main__":
    main()
