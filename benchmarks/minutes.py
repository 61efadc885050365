"""How accurate a recipe is after how many minutes of this machine.

    python benchmarks/minutes.py [CASE ...] [--cifar10 ROOT] [--clothing ROOT] [--seeds 0 ...]

Each run is a process of its own for each core, by the command that a user gives, from start to
report; nothing else should run. Every run is put into benchmarks/results/minutes.json as it ends;
minutes.md is written from all that are there. The pictures of both sets are files, in a folder or
an archive: those of CIFAR-10 in train/ and test/, those of the clothing dataset as its author
publishes them (github.com/alexeygrigorev/clothing-dataset-small).
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import apart
import page

PROCESSES = 2


@dataclass(frozen=True)
class Case:
    """A recipe and how it is changed."""

    recipe: str
    root: str
    """the option that names the pictures"""
    words: tuple[str, ...]
    """of the command"""


def _cifar10(epochs: int, *more: str) -> Case:
    words = ("--data.name", "folder", "--train.epochs", str(epochs), *more)
    return Case("cifar10", "cifar10", words)


def _photos(epochs: int) -> Case:
    """Grow the images at the same shares of the epochs as the recipe does."""
    schedule = f"[[1, 96], [{epochs // 2 + 1}, 112], [{epochs * 3 // 4 + 1}, 128]]"
    words = ("--train.epochs", str(epochs), "--data.image_size_schedule", schedule)
    return Case("photos", "clothing", words)


RESIDUAL = '{"widths": [64, 256, 256], "convolutions": 3, "residual": true}'
STRONGER = "[alternating_flip, {shift: {fraction: 0.125}}, {cutout: {side: 0.375}}]"
CASES = {
    "cifar10-4": _cifar10(4),
    "cifar10-8": _cifar10(8),
    "cifar10-12": _cifar10(12),
    "cifar10-residual-30": _cifar10(30, "--model.args", RESIDUAL, "--data.augment", STRONGER),
    "photos-35": _photos(35),
    "photos-70": _photos(70),
    "photos-140": _photos(140),
}
INTRODUCTION = f"""
Plain accuracy on the test pictures, each classified once as it is; in the second column of
accuracies together with its mirror image. The minutes are those of the whole command, with reading,
validation, test and report, on {PROCESSES} processes of a thread each. No choice was made by test
pictures, which a run reads once, at its end ([docs/recipes.md](../../docs/recipes.md)).

`cifar10-N` is `configs/cifar10.yaml` with N epochs on all 50,000 training pictures of CIFAR-10,
`cifar10-residual-N` with `--model.args '{RESIDUAL}'`
and `--data.augment '{STRONGER}'`.
The pictures are JPEG copies: accuracies are near to, not the same as, those on the original arrays.
`photos-N` is `configs/photos.yaml` with N epochs on the 3,068 training pictures of the clothing
dataset (ten classes, 341 for validation, 372 for the test: 0.01 is four pictures).
""".strip()


def run(case: Case, root: str, seed: int, more: list[str], folder: Path) -> dict[str, Any]:
    """Train; return figures of results.json."""
    words = [*case.words, "--seed", str(seed), "--threads", "1", *more]
    command = apart.train_command(case.recipe, folder, *words, root=root, processes=PROCESSES)
    _, process_s = apart.run(command)
    results = apart.read_results(folder)
    return {
        "accuracy": results["test"]["accuracy"],
        "augmented_accuracy": results["test"].get("augmented", {}).get("accuracy"),
        "validation_accuracy": results["validation"]["chosen_accuracy"],
        "weights_sha256": results["final_weights_sha256"],
        "epochs": results["train"]["epochs"],
        "parameters": results["model"]["parameters"],
        "train_s": results["train"]["seconds"],
        "process_s": process_s,
        "machine": page.machine(),
    }


def build_page(figures: page.Figures) -> list[str]:
    """Return the page."""
    rows = []
    for name in (name for name in CASES if name in figures):
        runs = list(figures[name].values())
        minutes = statistics.median(one["process_s"] for one in runs) / 60
        cells = [f"`{name}`", f"{runs[0]['parameters']:,}", str(len(runs)), f"{minutes:.1f}"]
        for figure in ("validation_accuracy", "accuracy", "augmented_accuracy"):
            found = [one[figure] for one in runs if one[figure] is not None]
            cells.append(f"{statistics.mean(found):.4f}" if found else "")
        rows.append(cells)
    heads = ["case", "parameters", "seeds", "minutes", "validation", "test", "test, with mirror"]
    machines = sorted({one["machine"] for runs in figures.values() for one in runs.values()})
    lines = ["# Minutes and accuracy", "", "    python benchmarks/minutes.py", "", INTRODUCTION, ""]
    lines += [*page.table(heads, rows), "", "Measured on:", ""]
    return [*lines, *(f"- {machine}" for machine in machines)]


def parse() -> argparse.Namespace:
    """Parse the command line."""
    parser = page.parser(__doc__)
    parser.add_argument("cases", nargs="*", metavar="CASE", help=", ".join(CASES))
    parser.add_argument("--cifar10", metavar="ROOT", help="data.root of CIFAR-10's pictures")
    parser.add_argument("--clothing", metavar="ROOT", help="data.root of the clothing dataset")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    page.add_output(parser, "minutes.json")
    parser.add_argument("--more", nargs=argparse.REMAINDER, default=[], help="for train.py")
    arguments = parser.parse_args()
    if unknown := set(arguments.cases) - CASES.keys():
        parser.error(f"{', '.join(unknown)}: not a case; there are {', '.join(CASES)}")
    arguments.cases = arguments.cases or list(CASES)
    for root in {CASES[name].root for name in arguments.cases}:
        if getattr(arguments, root) is None:
            parser.error(f"--{root} must say where the pictures are")
    return arguments


def main() -> None:
    """Train, and write the page after each run."""
    arguments = parse()
    for name in arguments.cases:
        case = CASES[name]
        root = str(Path(getattr(arguments, case.root)).resolve())
        for seed in arguments.seeds:
            with tempfile.TemporaryDirectory() as folder:
                found = run(case, root, seed, arguments.more, Path(folder) / "run")
            figures = page.read_figures(arguments.output)
            figures.setdefault(name, {})[str(seed)] = found
            page.write_figures(arguments.output, figures, build_page(figures))


if __name__ == "__main__":
    main()
