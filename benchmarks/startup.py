"""What a start costs: from the command to the first optimiser step, and to the help.

    python benchmarks/startup.py [--root DIR]       1 minute; nothing else should run

Whole processes, started in turn, with warm file caches. The page is benchmarks/results/startup.md.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
from pathlib import Path

import apart
import page
import paired

from trainer.ranks.exit_codes import STOPPED_ON_REQUEST

IMPORTS = [sys.executable, "-c", "import torch, accelerate"]
HELP = apart.python_command("train.py", "--help")


def first_step(root: str | None, run: Path) -> list[str]:
    """Return a command that saves a checkpoint and ends after the first optimiser step."""
    return apart.train_command("fashion_mnist", run, "--train.max_seconds", "1e-9", root=root)


def first_step_s(root: str | None) -> float:
    """Return the seconds of that command."""
    with tempfile.TemporaryDirectory() as folder:
        return apart.run(first_step(root, Path(folder) / "run"), STOPPED_ON_REQUEST)[1]


def main() -> None:
    """Measure and write the page."""
    parser = page.parser(__doc__)
    parser.add_argument("--root", help="data.root of the runs")
    parser.add_argument("--rounds", type=int, default=9)
    page.add_output(parser, "startup.md")
    arguments = parser.parse_args()
    found = paired.take_turns(
        {
            "imports": lambda: apart.run(IMPORTS)[1],
            "help": lambda: apart.run(HELP)[1],
            "step": lambda: first_step_s(arguments.root),
        },
        arguments.rounds,
    )
    imports, helps, steps = (statistics.median(seconds) for seconds in found.values())
    ratio = paired.spread(paired.ratios(found["step"], found["imports"]))
    recipe = "the default recipe on Fashion-MNIST, until its first optimiser step is done and saved"
    rows = [
        ['`python -c "import torch, accelerate"`', f"{imports:.2f} s", "1"],
        ["`python train.py --help`", f"{helps:.2f} s", f"{helps / imports:.2f}"],
        [recipe, f"{steps:.2f} s", ratio],
    ]
    lines = [
        f"Medians of {arguments.rounds} rounds of three processes, the last one with the ratio of",
        "each round and its quartiles:",
        "",
        *page.table(["process, from its start to its end", "time", "over the imports"], rows),
    ]
    command = page.command_of("startup.py", arguments, parser.parse_args([]))
    page.write(arguments.output, "What a start costs", command, lines)


if __name__ == "__main__":
    main()
