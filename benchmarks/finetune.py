"""Fine-tuning a pretrained net on photographs: accuracy against seconds, beside other trainers.

    python benchmarks/finetune.py --root DIR [NAME ...] [--epochs 1 2 4 8] [--seeds 0 ...]

DIR has train/, validation/ and test/ with CLASS/*.jpg; nothing else should run. ImageNet's weights
come from the extra `pretrained`; timm and torchvision, next to a CPU build of torch, from the
folder `timm` of the environment, where launch/environment.sh puts them, and fastai, Lightning and
transformers likewise from the folders `fastai`, `lightning` and `transformers`
(benchmarks/README.md). What is not installed is left out. Every training is put into
benchmarks/results/finetune.json as it ends; finetune.md and finetune.png are made from all that are
there.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import sys
import tempfile
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any

import apart
import page
from finetune_loops import LOOPS, OURS, Task

PROCESSES = 2
EPOCHS = [1, 2, 4, 8]
FOLDERS = [Path(sys.prefix) / name for name in ("timm", "fastai", "lightning", "transformers")]

INTRODUCTION = """
Seconds are those of the training alone, with reading and decoding and without evaluations: each
point of a curve is a training of its own with its own schedule to the end. Accuracies are plain, of
each picture as it is, once. Ours uses one process a core, the others as many threads, and as many
processes that load, and batches of 32, with which the plain loop is better after an epoch than with
64 (0.77 and 0.70 on validation). The others' processes keep freed memory, as ours do
(docs/speed.md). No choice was made by test pictures.
""".strip()


def search_path() -> list[Path]:
    """Return where the processes of the others look for modules."""
    return [Path(__file__).parent, *filter(Path.is_dir, FOLDERS)]


def is_installed(name: str) -> bool:
    """Return whether a training's process can import its package."""
    places = [*map(str, (apart.REPOSITORY, *search_path())), *sys.path]
    return PathFinder.find_spec(LOOPS[name].package, places) is not None


def train_ours(task: Task, more: list[str]) -> dict[str, float]:
    """Train by the recipe; return seconds and accuracies."""
    words = ["--train.epochs", str(task.epochs)]
    words += ["--seed", str(task.seed), "--threads", "1", *more]
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        command = apart.train_command("finetune", run, *words, root=task.root, processes=PROCESSES)
        apart.run(command)
        results = apart.read_results(run)
    return {
        "train_s": results["train"]["seconds"],
        "accuracy": results["test"]["accuracy"],
        "validation_accuracy": results["validation"]["chosen_accuracy"],
    }


def train_other(name: str, task: Task) -> dict[str, float]:
    """Train in another process; return seconds and accuracies."""
    command = [sys.executable, "-m", "finetune_loops", name, json.dumps(dataclasses.asdict(task))]
    printed, _ = apart.run(command, search=search_path())
    found: dict[str, float] = json.loads(printed.splitlines()[-1])
    return found


def points(runs: dict[str, Any]) -> list[tuple[int, float, float, float, int]]:
    """Return epochs, means of seconds, validation and test accuracy, and the number of seeds."""
    found = []
    for epochs, seeds in sorted(runs.items(), key=lambda item: int(item[0])):
        means = [
            statistics.mean(one[key] for one in seeds.values())
            for key in ("train_s", "validation_accuracy", "accuracy")
        ]
        found.append((int(epochs), *means, len(seeds)))
    return sorted(found, key=lambda point: point[1])


def draw(figures: page.Figures, path: Path) -> None:
    """Draw test accuracy against seconds."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 5.2), layout="constrained")
    axes = figure.subplots()
    for name in (name for name in LOOPS if name in figures):
        curve = points(figures[name])
        style = {"linewidth": 2.5, "color": "black"} if name == OURS else {"linewidth": 1.2}
        axes.plot(
            [point[1] for point in curve],
            [point[3] for point in curve],
            marker="o",
            label=LOOPS[name].title.replace("*", "").replace("`", ""),
            **style,
        )
    axes.set_xscale("log")
    axes.set_xlabel("seconds of training")
    axes.set_ylabel("test accuracy")
    axes.grid(alpha=0.3)
    figure.legend(fontsize="small", loc="outside lower center")
    figure.savefig(path, dpi=110)


def build_page(figures: page.Figures) -> list[str]:
    """Return the page."""
    heads = ["training", "epochs", "seeds", "seconds", "validation", "test"]
    rows = [
        [LOOPS[name].title, str(epochs), str(seeds), f"{train_s:.0f}", f"{val:.4f}", f"{test:.4f}"]
        for name in LOOPS
        if name in figures
        for epochs, train_s, val, test, seeds in points(figures[name])
    ]
    machines = sorted(
        {one["machine"] for runs in figures.values() for seeds in runs.values() for one in
         seeds.values()}
    )  # fmt: skip
    return [
        "# Fine-tuning beside other trainers", "",
        "    python benchmarks/finetune.py --root DIR", "", INTRODUCTION, "",
        "![Test accuracy against seconds](finetune.png)", "", *page.table(heads, rows), "",
        "Measured on:", "", *(f"- {machine}" for machine in machines),
    ]  # fmt: skip


def parse() -> argparse.Namespace:
    """Parse the command line."""
    parser = page.parser(__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(LOOPS))
    parser.add_argument("--root", required=True, metavar="DIR")
    parser.add_argument("--epochs", type=int, nargs="+", default=EPOCHS)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--image_size", type=int, default=160, help="of the others")
    parser.add_argument("--batch_size", type=int, default=32, help="of the others")
    page.add_output(parser, "finetune.json")
    parser.add_argument("--more", nargs=argparse.REMAINDER, default=[], help="for train.py")
    arguments = parser.parse_args()
    if unknown := set(arguments.names) - LOOPS.keys():
        parser.error(f"{', '.join(unknown)}: there are {', '.join(LOOPS)}")
    arguments.names = arguments.names or list(filter(is_installed, LOOPS))
    return arguments


def main() -> None:
    """Train, and write the page after each training."""
    arguments = parse()
    root = str(Path(arguments.root).resolve())
    for seed in arguments.seeds:
        for epochs in arguments.epochs:
            for name in arguments.names:
                task = Task(
                    root, arguments.image_size, arguments.batch_size, epochs, seed, PROCESSES
                )
                ours = name == OURS
                found = train_ours(task, arguments.more) if ours else train_other(name, task)
                figures = page.read_figures(arguments.output)
                runs = figures.setdefault(name, {}).setdefault(str(epochs), {})
                runs[str(seed)] = {**found, "machine": page.machine()}
                draw(figures, arguments.output.with_suffix(".png"))
                page.write_figures(arguments.output, figures, build_page(figures))


if __name__ == "__main__":
    main()
