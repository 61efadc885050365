"""How long the fast recipe takes to 90 % on Fashion-MNIST, compared with the lab's recipe.

    python benchmarks/time_to_accuracy.py [--root DIR]       5 minutes; nothing else should run

Both train on the first 10,000 images and are tested on all 10,000 test images, with the same
seeds, in turn, each run in a new process. The page is
benchmarks/results/time_to_accuracy.md.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import tempfile
import time
from pathlib import Path

import apart
import page
import paired
import torch
from contenders.lab import train_epoch
from contenders.task import Parts, Task

from trainer.ranks import processes


@dataclasses.dataclass(frozen=True)
class Outcome:
    """The figures of a run."""

    accuracy: float
    """on the test images"""
    train_s: float
    """in the training loop, without any evaluation"""
    process_s: float
    """from the start of the process to its end"""


def run_lab(task: Task) -> dict[str, float]:
    """Train the lab's recipe in this process: its net, its loop, Adam."""
    torch.set_num_threads(task.threads)
    parts = Parts(task)
    optimizer = parts.adam()
    start_s = time.perf_counter()
    for _ in range(task.epochs):
        train_epoch(parts, optimizer)
    train_s = time.perf_counter() - start_s
    images, targets = parts.test.images[:], parts.test.targets
    parts.model.eval()
    with torch.no_grad():
        predicted = parts.model(parts.scaling.apply(images)).argmax(1)
    accuracy = (predicted == targets).float().mean().item()
    return {"accuracy": accuracy, "train_s": train_s}


def lab(seed: int, arguments: argparse.Namespace, folder: Path) -> Outcome:
    """Train the lab's recipe in a new process."""
    task = Task(
        model="lab_cnn",
        model_args={},
        batch_size=100,
        images=arguments.images,
        epochs=arguments.lab_epochs,
        threads=arguments.threads,
        folder=str(folder),
        root=arguments.root,
        data=arguments.data,
        seed=seed,
    )
    words = ["--lab", json.dumps(dataclasses.asdict(task))]
    output, process_s = apart.run(apart.python_command("benchmarks/time_to_accuracy.py", *words))
    return Outcome(**json.loads(output.splitlines()[-1]), process_s=process_s)


def ours(seed: int, arguments: argparse.Namespace, folder: Path) -> Outcome:
    """Train the fast recipe by the command that a user gives."""
    words = ["--seed", str(seed), "--data.train_size", str(arguments.images)]
    words += ["--data.name", arguments.data, *arguments.more]
    command = apart.train_command(
        "fashion_mnist_fast", folder, *words, root=arguments.root, processes=None
    )
    _, process_s = apart.run(command)
    results = apart.read_results(folder)
    return Outcome(results["test"]["accuracy"], results["train"]["seconds"], process_s)


RECIPES = {"the lab's recipe": lab, "`configs/fashion_mnist_fast.yaml`": ours}


def measure(arguments: argparse.Namespace) -> dict[str, list[Outcome]]:
    """Return each recipe's outcome for each seed; which goes first turns with the seed."""
    found: dict[str, list[Outcome]] = {name: [] for name in RECIPES}
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(arguments.seeds):
            for name in list(RECIPES)[:: 1 if seed % 2 else -1]:
                outcome = RECIPES[name](seed, arguments, Path(folder) / str(seed))
                found[name].append(outcome)
                print(seed, name, outcome, flush=True)
    return found


def table(found: dict[str, list[Outcome]]) -> list[str]:
    """Write a row for each recipe, and the ratios of the times."""
    rows = []
    for name, outcomes in found.items():
        accuracies = [outcome.accuracy for outcome in outcomes]
        cells = [name, f"{statistics.mean(accuracies):.4f}"]
        cells += [", ".join(f"{accuracy:.4f}" for accuracy in accuracies)]
        for kind in ("train_s", "process_s"):
            cells += [f"{statistics.median(getattr(one, kind) for one in outcomes):.1f} s"]
        rows.append(cells)
    labs, fast = found.values()
    train, process = (
        paired.spread(
            paired.ratios(*([getattr(one, kind) for one in outcomes] for outcomes in (fast, labs)))
        )
        for kind in ("train_s", "process_s")
    )
    heads = ["recipe", "test accuracy", "each seed"]
    return [
        *page.table([*heads, "training", "whole process"], rows),
        "",
        f"The fast recipe's time over that of the lab's recipe: training {train}, whole process",
        f"{process}. Median, and quartiles, of the ratios of each seed's pair.",
    ]


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = page.parser(__doc__)
    parser.add_argument("--root", help="data.root of the runs")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument(
        "--threads", type=int, default=processes.usable_cores(), help="of the lab's recipe"
    )
    parser.add_argument("--data", default="fashion_mnist", help="data.name, for tests")
    parser.add_argument("--images", type=int, default=10_000, help="of the training, the first")
    parser.add_argument("--lab_epochs", type=int, default=15)
    parser.add_argument("--more", nargs=argparse.REMAINDER, default=[], help="for train.py")
    parser.add_argument("--lab", help=argparse.SUPPRESS)
    page.add_output(parser, "time_to_accuracy.md")
    return parser


def main() -> None:
    """Measure and write the page; with --lab, do one run of the lab's recipe."""
    arguments = parser().parse_args()
    if arguments.lab:
        print(json.dumps(run_lab(Task(**json.loads(arguments.lab)))))
        return
    lines = [
        f"{arguments.seeds} seeds. Training is the time in the loop: reading, evaluation and",
        "reports are left out; the whole process has them all. The lab's recipe is its own net and",
        f"loop, Adam at 0.001, batches of 100, {arguments.lab_epochs} epochs, {arguments.threads}",
        "threads. The fast recipe's command starts a process of one thread for each core.",
        "",
        *table(measure(arguments)),
    ]
    command = page.command_of("time_to_accuracy.py", arguments, parser().parse_args([]))
    page.write(arguments.output, "Time to 90 % on Fashion-MNIST", command, lines)


if __name__ == "__main__":
    main()
