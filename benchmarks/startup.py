"""What a start costs: from the command to the first optimiser step, and to the help.

    python benchmarks/startup.py [--root DIR]       1 minute; nothing else should run

Whole processes, started in turn, with warm file caches. The page is benchmarks/results/startup.md.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import page

from trainer.exit_codes import STOPPED_ON_REQUEST

REPOSITORY = Path(__file__).parent.parent

IMPORTS = [sys.executable, "-c", "import torch, accelerate"]
HELP = [sys.executable, str(REPOSITORY / "train.py"), "--help"]


def first_step(root: str | None, run: Path) -> list[str]:
    """A command that ends, its checkpoint saved, after the first optimiser step."""
    words = [sys.executable, str(REPOSITORY / "train.py"), "--train.max_seconds", "1e-9"]
    words += ["--tracking.wandb", "disabled", "--output_dir", str(run)]
    return [*words, "--config", str(REPOSITORY / "configs" / "fashion_mnist.yaml")] + (
        ["--data.root", root] if root else []
    )


def seconds(command: Sequence[str], exit_code: int = 0) -> float:
    """Of a process from its start to its end."""
    start_s = time.perf_counter()
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    elapsed_s = time.perf_counter() - start_s
    if finished.returncode != exit_code:
        sys.exit(finished.stderr)
    return elapsed_s


def measure(rounds: int, root: str | None, folder: Path) -> list[tuple[float, float, float]]:
    """Seconds of the bare imports, of the help and of a first step, a round an entry."""
    found = []
    for number in range(-1, rounds):  # one to warm up
        imports_s, help_s = seconds(IMPORTS), seconds(HELP)
        step_s = seconds(first_step(root, folder / str(number)), STOPPED_ON_REQUEST)
        if number >= 0:
            found.append((imports_s, help_s, step_s))
    return found


def main() -> None:
    """Measure and write the page."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--root", help="data.root of the runs")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--no-page", action="store_true", help="only show the figures")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = measure(arguments.rounds, arguments.root, Path(folder))
    imports, helps, steps = (statistics.median(column) for column in zip(*found, strict=True))
    ratio = page.spread([step / bare for bare, _, step in found])
    lines = [
        f"Medians of {arguments.rounds} rounds of three processes, the last one with the ratio of",
        "each round and its quartiles:",
        "",
        "| process, from its start to its end | time | over the imports |",
        "| --- | --- | --- |",
        f'| `python -c "import torch, accelerate"` | {imports:.2f} s | 1 |',
        f"| `python train.py --help` | {helps:.2f} s | {helps / imports:.2f} |",
        "| the default recipe on Fashion-MNIST, until its first optimiser step is done and saved "
        f"| {steps:.2f} s | {ratio} |",
    ]
    if arguments.no_page:
        print("\n".join(lines))
    else:
        page.write("startup", "What a start costs", ["python benchmarks/startup.py"], lines)


if __name__ == "__main__":
    main()
