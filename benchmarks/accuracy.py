"""What the recipes in configs/ reach on test images that they have never seen, over several seeds.

    python benchmarks/accuracy.py [RECIPE ...] [--seeds 0 1 ...] [--root DIR] [--lab_root DIR]

Each run is a process of its own, by the command that a user gives; the page tells its CPU time, to
which threads that wait for a busy core add. Every run is put into benchmarks/results/accuracy.json
as it ends; accuracy.md is written from all that are there.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import apart
import page


@dataclass(frozen=True)
class Recipe:
    """A configuration and how often it is run."""

    images: str
    """what it is trained on, for people"""
    seeds: int
    minutes: int
    """its budget on two CPU cores"""


RECIPES = {
    "fashion_mnist": Recipe("the first 10,000", seeds=3, minutes=6),
    "fashion_mnist_best": Recipe("the first 10,000", seeds=3, minutes=25),
    "fashion_mnist_full": Recipe("all 60,000", seeds=2, minutes=40),
    "lab_fashion_mnist": Recipe("the first 10,000", seeds=3, minutes=6),
    "lab_mnist": Recipe("the lab's 1,000 digits", seeds=10, minutes=2),
    "lab_mnist_best": Recipe("the lab's 1,000 digits", seeds=10, minutes=2),
}
BASELINES = {
    "lab_fashion_mnist": "the lab's net and recipe",
    "lab_mnist": "the lab's net",
}

PEOPLE = "people, without training"
PUBLISHED = {
    PEOPLE: 0.835,
    "two convolutions, from": 0.876,
    "HOG and SVM": 0.926,
    "two convolutions, to": 0.934,
    "ResNet18, augmentation": 0.949,
    "DenseNet-BC, 768,000 parameters": 0.954,
    "WideResNet-28-10, random erasing": 0.963,
    "WideResNet-40-4": 0.967,
}
"""of nets, trained on all 60,000 images: the tables of github.com/zalandoresearch/fashion-mnist"""

INTRODUCTION = """
Plain accuracy, each test image classified once as it is: all 10,000 test images of Fashion-MNIST,
their first 1,000 where the lab's protocol asks for it, or the lab's 100 test digits. Mean and
standard deviation over seeds, which draw the weights, the order, the augmentation and the images
held out. The CPU time is that of a whole run, the median; the budget is that of two cores. No
recipe was chosen by test images, and a run reads them once, at its end
([docs/recipes.md](../../docs/recipes.md)). Runs of one thread and of two, which round differently,
are mixed here: only the same `--threads` repeats a seed's own figure. The lab's recipes have
portable kernels, by which anybody gets the same weights; `lab_mnist_best` was measured before, with
native ones (`--more --train.kernels native`), and has not been run again.
""".strip()


def run(name: str, seed: int, arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Train a recipe with a seed; return figures of its results.json."""
    root = arguments.lab_root if name.startswith("lab_mnist") else arguments.root
    before_s = _cpu_s_of_children()
    words = ["--seed", str(seed), *arguments.more]
    _, process_s = apart.run(apart.train_command(name, folder, *words, root=root))
    results = apart.read_results(folder)
    test, train = results["test"], results["train"]
    return {
        "weights_sha256": results["final_weights_sha256"],
        "accuracy": test["accuracy"],
        "lab_accuracy": test.get("lab_accuracy"),
        "augmented_accuracy": test.get("augmented", {}).get("accuracy"),
        "per_class": {row["name"]: row["accuracy"] for row in test["per_class"]},
        "epochs": train["epochs"],
        "precision": train["precision"],
        "train_s": train["seconds"],
        "process_s": process_s,
        "cpu_s": _cpu_s_of_children() - before_s,
        "parameters": results["model"]["parameters"],
        "test": test["samples"],
        "machine": page.machine(),
    }


def _cpu_s_of_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def mean_and_deviation(values: Sequence[float]) -> str:
    """Format as 0.9170 ± 0.0012."""
    mean = f"{statistics.mean(values):.4f}"
    return mean + (f" ± {statistics.stdev(values):.4f}" if len(values) > 1 else "")


def recipes_table(figures: page.Figures) -> list[str]:
    """Write a row for each recipe."""
    rows = []
    for name, recipe in RECIPES.items():
        if name not in figures:
            continue
        runs = list(figures[name].values())
        labs = [one["lab_accuracy"] for one in runs if one["lab_accuracy"] is not None]
        note = f" ({BASELINES[name]})" if name in BASELINES else ""
        cells = [f"`configs/{name}.yaml`{note}", recipe.images, f"{runs[0]['parameters']:,}"]
        cells += [str(runs[0]["epochs"]), str(len(runs))]
        cells += [mean_and_deviation([one["accuracy"] for one in runs])]
        cells += [mean_and_deviation(labs) if labs else ""]
        spent = [one["cpu_s"] for one in runs if "cpu_s" in one]
        cells += [f"{statistics.median(spent) / 60:.1f} min" if spent else ""]
        cells += [f"2 x {recipe.minutes} min"]
        rows.append(cells)
    heads = ["recipe", "trained on", "parameters", "epochs", "seeds", "test accuracy"]
    return page.table([*heads, "lab's first 1,000", "CPU time", "budget"], rows)


def ladder(figures: page.Figures) -> list[str]:
    """Sort ours into the published rows, the best last."""
    rows = [
        (accuracy, name, "" if name == PEOPLE else "all 60,000")
        for name, accuracy in PUBLISHED.items()
    ]
    for name, recipe in RECIPES.items():
        if name in figures and "fashion_mnist" in name:
            mean = statistics.mean(one["accuracy"] for one in figures[name].values())
            rows.append((mean, f"**`configs/{name}.yaml`**", recipe.images))
    cells = ([name, images, f"{accuracy:.3f}"] for accuracy, name, images in sorted(rows))
    return page.table(["net", "trained on", "test accuracy"], cells)


def classes_table(figures: page.Figures, names: Sequence[str]) -> list[str]:
    """Write each class's mean accuracy over the seeds of one data set, the worst class in bold."""
    means = {
        name: {
            label: statistics.mean(one["per_class"][label] for one in figures[name].values())
            for label in next(iter(figures[name].values()))["per_class"]
        }
        for name in names
    }
    rows = []
    for label in next(iter(means.values())):
        cells = [
            f"**{found[label]:.3f}**"
            if found[label] == min(found.values())
            else f"{found[label]:.3f}"
            for found in means.values()
        ]
        rows.append([label, *cells])
    return page.table(["class", *(f"`{name}`" for name in names)], rows)


def build_page(figures: page.Figures) -> list[str]:
    """Return the page."""
    fashion = [name for name in RECIPES if name in figures and "fashion_mnist" in name]
    digits = [name for name in RECIPES if name in figures and name not in fashion]
    machines = sorted({one["machine"] for runs in figures.values() for one in runs.values()})
    lines = ["# Accuracy of the recipes", "", "    python benchmarks/accuracy.py", ""]
    lines += [INTRODUCTION, "", *recipes_table(figures), ""]
    if fashion:
        lines += ["## Fashion-MNIST, among published figures", ""]
        lines += ["Published: the tables of https://github.com/zalandoresearch/fashion-mnist.", ""]
        lines += [*ladder(figures), ""]
    for names, title in ((fashion, "Fashion-MNIST"), (digits, "the digits")):
        if names:
            lines += [f"## Per class: {title}", "", "The worst class in bold.", ""]
            lines += [*classes_table(figures, names), ""]
    return [*lines, "Measured on:", "", *(f"- {machine}" for machine in machines)]


def parse() -> argparse.Namespace:
    """Parse the command line."""
    parser = page.parser(__doc__)
    parser.add_argument("recipes", nargs="*", metavar="RECIPE", help=", ".join(RECIPES))
    parser.add_argument("--seeds", type=int, nargs="+", help="instead of as many as a recipe has")
    parser.add_argument("--root", help="data.root of Fashion-MNIST")
    parser.add_argument("--lab_root", help="data.root of the lab's digits")
    page.add_output(parser, "accuracy.json")
    parser.add_argument("--more", nargs=argparse.REMAINDER, default=[], help="for train.py")
    arguments = parser.parse_args()
    if unknown := set(arguments.recipes) - RECIPES.keys():
        parser.error(f"{', '.join(unknown)}: not a recipe; there are {', '.join(RECIPES)}")
    return arguments


def main() -> None:
    """Train, and write the page after each run."""
    arguments = parse()
    for name in arguments.recipes or RECIPES:
        for seed in arguments.seeds or range(RECIPES[name].seeds):
            with tempfile.TemporaryDirectory() as folder:
                found = run(name, seed, arguments, Path(folder) / "run")
            figures = page.read_figures(arguments.output)
            figures.setdefault(name, {})[str(seed)] = found
            page.write_figures(arguments.output, figures, build_page(figures))


if __name__ == "__main__":
    main()
