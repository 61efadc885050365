"""Check what lockstep promises, on 1, 2 and 4 processes, and measure what it costs.

    python benchmarks/lockstep.py same [--root DIR]  the same digest at any count; 15 minutes
    python benchmarks/lockstep.py cost               against DDP, and without the tree; 16 minutes

Each writes its page to benchmarks/results. All processes have one thread. Nothing else should run.
"""

from __future__ import annotations

import statistics
import tempfile
from pathlib import Path
from typing import Any

import apart
import page
import paired
from quicknet_case import QUICKNET

LARGE = QUICKNET | {
    "model": "vgg_small",
    "model_args": {"widths": [64, 256, 1024]},
    "optimizer": "sgd",
}
STEP_TIMES = "benchmarks/step_times.py"
RIVALS = ["exact", "fast", "bare DDP", "bare DDP, one piece"]


def against(times: dict[str, Any], name: str, other: str) -> str:
    """Return the time of one trainer over that of another."""
    return paired.spread(paired.ratios(times["seconds"][name], times["seconds"][other]))


def rivals_table(case: dict[str, Any]) -> list[str]:
    """Measure one model on two processes; return its table."""
    times = apart.measure(STEP_TIMES, case | {"trainers": RIVALS}, processes=2)
    rows = []
    for name in RIVALS:
        step_s = statistics.median(times["seconds"][name]) / case["steps"]
        ratios = [against(times, name, other) for other in RIVALS[1:]]
        rows.append([name, f"{step_s * 1000:.1f} ms", *ratios])
    heads = ["trainer", "step", "time over fast", "over bare DDP", "over bare DDP, one piece"]
    title = f"`{case['model']}` with {times['parameters']:,} parameters:"
    return [title, "", *page.table(heads, rows), ""]


def cost(output: Path) -> None:
    """Measure what the fixed order costs, and write the page."""
    tables = rivals_table(QUICKNET | {"rounds": 24, "steps": 20})
    tables += rivals_table(LARGE | {"rounds": 8, "steps": 2})
    case = QUICKNET | {"microbatches": 1, "rounds": 40, "steps": 10}
    case |= {"trainers": ["exact", "without the tree"]}
    single = apart.measure(STEP_TIMES, case, processes=1)
    lines = [
        "Each figure is the median, and the quartiles, of ratios of neighbouring blocks of steps.",
        "The contenders take turns in one run on random images of 28 x 28.",
        "",
        "## Two processes of one thread",
        "",
        "A global batch of 200 in four pieces of 50. *fast* is this trainer with DDP's all-reduce,",
        "*bare DDP* is a dozen lines around DDP: two backward passes of 50, or one of 100.",
        "",
        *tables,
        "## One process, one micro-batch",
        "",
        "quicknet with a batch of 200: the time of exact is",
        f"{against(single, 'exact', 'without the tree')} times that of the same",
        "engine with the tree removed.",
    ]
    command = "python benchmarks/lockstep.py cost"
    page.write(output, "What the fixed order of additions costs", command, lines)


def same(output: Path, root: str | None) -> None:
    """Train the default recipe on several numbers of processes; write the digests."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for processes in (1, 2, 4):
            run = Path(folder) / str(processes)
            words = ["--threads", "1"]
            apart.run(
                apart.train_command("fashion_mnist", run, *words, root=root, processes=processes)
            )
            results = apart.read_results(run)
            accuracy = f"{results['test']['accuracy']:.4f}"
            rows.append([str(processes), results["final_weights_sha256"], accuracy])
            print(rows[-1], flush=True)
    heads = ["processes of one thread", "SHA-256 of the last weights", "test accuracy"]
    lines = [
        "The default recipe at full size: 24 epochs on the first 10,000 images of Fashion-MNIST.",
        "",
        *page.table(heads, rows),
    ]
    command = "python benchmarks/lockstep.py same"
    page.write(output, "The same weights on any number of processes", command, lines)


def main() -> None:
    """Run the command."""
    parser = page.parser(__doc__)
    commands = parser.add_subparsers(dest="what", required=True)
    one = {name: commands.add_parser(name) for name in ("same", "cost")}
    one["same"].add_argument("--root", help="data.root of the runs")
    for name, command in one.items():
        page.add_output(command, f"lockstep_{name}.md")
    arguments = parser.parse_args()
    if arguments.what == "same":
        same(arguments.output, arguments.root)
    else:
        cost(arguments.output)


if __name__ == "__main__":
    main()
