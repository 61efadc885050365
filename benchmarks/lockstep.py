"""What lockstep promises and costs: the default recipe on 1, 2 and 4 processes, and times of steps.

    python benchmarks/lockstep.py same [--root DIR]  the same digest at any count; 12 minutes
    python benchmarks/lockstep.py cost               against DDP, and without the tree; 12 minutes

Each writes its page to benchmarks/results. All processes have one thread. Nothing else should run.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import page

REPOSITORY = Path(__file__).parent.parent

DEFAULT_RECIPE: dict[str, Any] = {
    "model": "quicknet",
    "model_args": {"widths": [24, 48, 48, 96, 96]},
    "optimizer": "muon",
    "batch_size": 200,
    "microbatches": 4,
    "threads": 1,
}
LARGE = DEFAULT_RECIPE | {
    "model": "vgg_small",
    "model_args": {"widths": [64, 256, 1024]},
    "optimizer": "sgd",
}
RIVALS = ["exact", "fast", "bare DDP", "bare DDP, one piece"]


def launch(processes: int, words: Sequence[str], exit_code: int = 0) -> None:
    """Run a Python program, which is to end with that code, in so many CPU processes."""
    launcher = [sys.executable]
    if processes > 1:
        launcher += ["-m", "torch.distributed.run", "--standalone"]
        launcher += ["--nproc_per_node", str(processes)]
    more = {"PYTHONPATH": str(REPOSITORY), "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    finished = subprocess.run(
        [*launcher, *words], env=os.environ | more, capture_output=True, text=True, check=False
    )
    if finished.returncode != exit_code:
        sys.exit(finished.stderr)


def step_times(processes: int, case: dict[str, Any]) -> dict[str, Any]:
    """What step_times.py measures."""
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "times.json"
        launch(
            processes,
            [str(Path(__file__).with_name("step_times.py")), json.dumps(case), str(output)],
        )
        times: dict[str, Any] = json.loads(output.read_text())
        return times


def against(times: dict[str, Any], name: str, other: str) -> list[float]:
    """Of each round, the time of one trainer over that of another."""
    pairs = zip(times["seconds"][name], times["seconds"][other], strict=True)
    return [mine / theirs for mine, theirs in pairs]


def rivals_table(case: dict[str, Any]) -> list[str]:
    """A table of one model at two processes."""
    times = step_times(2, case | {"trainers": RIVALS})
    rows = [
        f"`{case['model']}` with {times['parameters']:,} parameters:",
        "",
        "| trainer | step | time over fast | over bare DDP | over bare DDP, one piece |",
        "| --- | --- | --- | --- | --- |",
    ]
    for name in RIVALS:
        step_s = statistics.median(times["seconds"][name]) / case["steps"]
        ratios = [page.spread(against(times, name, other)) for other in RIVALS[1:]]
        rows.append(f"| {name} | {step_s * 1000:.1f} ms | {' | '.join(ratios)} |")
    return [*rows, ""]


def cost() -> None:
    """Write what the fixed order costs."""
    tables = rivals_table(DEFAULT_RECIPE | {"rounds": 24, "steps": 20})
    tables += rivals_table(LARGE | {"rounds": 8, "steps": 2})
    alone = DEFAULT_RECIPE | {"microbatches": 1, "trainers": ["exact", "without the tree"]}
    single = step_times(1, alone | {"rounds": 40, "steps": 10})
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
        "The default recipe's model with a batch of 200: the time of exact is",
        f"{page.spread(against(single, 'exact', 'without the tree'))} times that of the same",
        "engine with the tree removed.",
    ]
    command = "python benchmarks/lockstep.py cost"
    page.write("lockstep_cost", "What the fixed order of additions costs", [command], lines)


def same(root: str | None) -> None:
    """Write that the default recipe gives one digest on any number of processes."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for processes in (1, 2, 4):
            run = Path(folder) / str(processes)
            words = ["--config", str(REPOSITORY / "configs" / "fashion_mnist.yaml")]
            words += ["--output_dir", str(run), "--threads", "1", "--tracking.wandb", "disabled"]
            launch(
                processes,
                [str(REPOSITORY / "train.py"), *words, *(["--data.root", root] if root else [])],
            )
            results = json.loads((run / "results.json").read_text())
            rows.append(
                f"| {processes} | {results['final_weights_sha256']} "
                f"| {results['test']['accuracy']:.4f} |"
            )
            print(rows[-1], flush=True)
    lines = [
        "The default recipe at full size: 24 epochs on the first 10,000 images of Fashion-MNIST.",
        "",
        "| processes of one thread | SHA-256 of the last weights | test accuracy |",
        "| --- | --- | --- |",
        *rows,
    ]
    command = "python benchmarks/lockstep.py same"
    page.write("lockstep_same", "The same weights on any number of processes", [command], lines)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["same", "cost"])
    parser.add_argument("--root", help="data.root of the runs (same)")
    arguments = parser.parse_args()
    if arguments.what == "same":
        same(arguments.root)
    else:
        cost()


if __name__ == "__main__":
    main()
