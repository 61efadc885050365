"""What `python train.py` does with a machine's cores: one run, two at once, small pieces, a start.

    python benchmarks/starter.py [ROW ...] [--root DIR]     10 minutes; nothing else should run

Whole processes, in turn; ROW: only these rows, the others stay as they were measured before. The
page is benchmarks/results/starter.md.
"""

from __future__ import annotations

import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import apart
import page
import paired

from trainer.ranks.exit_codes import STOPPED_ON_REQUEST
from trainer.ranks.processes import usable_cores


@dataclass(frozen=True)
class Trainings:
    """Trainings of one recipe for some epochs."""

    recipe: str
    epochs: int
    root: str | None

    def command(self, run: Path, *more: str, processes: int) -> list[str]:
        """Return the command of one, without checkpoints and validation."""
        words = ["--train.epochs", str(self.epochs), "--schedule.warmup_epochs", "0"]
        words += ["--checkpoint.every_epochs", "null"]
        return apart.train_command(
            self.recipe, run, *words, *more, root=self.root, processes=processes
        )

    def train_s(self, *more: str, processes: int) -> float:
        """Return the seconds in the loop of one."""
        with tempfile.TemporaryDirectory() as folder:
            run = Path(folder) / "run"
            apart.run(self.command(run, *more, processes=processes))
            seconds: float = apart.read_results(run)["train"]["seconds"]
            return seconds

    def whole_s(self, count: int, processes: int) -> float:
        """Return the seconds of this many whole commands at the same time."""
        with tempfile.TemporaryDirectory() as folder:
            start_s = time.perf_counter()
            started = [
                subprocess.Popen(
                    self.command(Path(folder) / str(number), processes=processes),
                    env=apart.environment(),
                    stdout=subprocess.DEVNULL,
                )
                for number in range(count)
            ]
            codes = [one.wait() for one in started]
            if any(codes):
                raise RuntimeError("a training has failed")
            return time.perf_counter() - start_s

    def first_step_s(self, processes: int, *, torchrun: bool) -> float:
        """Return the seconds until the first step of one is done and saved."""
        with tempfile.TemporaryDirectory() as folder:
            words = ["--train.max_seconds", "1e-9"]
            command = self.command(Path(folder) / "run", *words, processes=processes)
            # Which has no exit code but 1 for it.
            return apart.run(
                apart.by_torchrun(command, processes) if torchrun else command,
                1 if torchrun else STOPPED_ON_REQUEST,
            )[1]


def compare(
    rounds: int, ours: Callable[[], float], theirs: Callable[[], float]
) -> tuple[float, float, str]:
    """Return the median seconds of both, and the ratio of theirs to ours in each round."""
    found = paired.take_turns({"ours": ours, "theirs": theirs}, rounds, warm_up=0)
    medians = [statistics.median(seconds) for seconds in found.values()]
    return medians[0], medians[1], paired.spread(paired.ratios(found["theirs"], found["ours"]))


@dataclass(frozen=True)
class Row:
    """Two ways to do something."""

    what: str
    ours: Callable[[Trainings, int], float]
    """seconds of a round, on this many cores"""
    against: str
    theirs: Callable[[Trainings, int], float]


NATIVE = ("--train.kernels", "native")
PORTABLE = ("--train.kernels", "portable")
ROWS = {
    "processes": Row(
        "one run, {cores} processes of one thread",
        lambda one, cores: one.train_s(processes=cores),
        "one process of {cores} threads",
        lambda one, cores: one.train_s("--threads", str(cores), processes=1),
    ),
    "two": Row(
        "one run after the other, twice the time of one",
        lambda one, cores: 2 * one.whole_s(1, cores),
        "two runs at once, {cores} processes each",
        lambda one, cores: one.whole_s(2, cores),
    ),
    "pieces": Row(
        "one process, four micro-batches",
        lambda one, _: one.train_s(processes=1),
        "eight micro-batches",
        lambda one, _: one.train_s("--train.microbatches", "8", processes=1),
    ),
    "kernels": Row(
        "{cores} processes, `train.kernels: native`",
        lambda one, cores: one.train_s(*NATIVE, processes=cores),
        "`portable`",
        lambda one, cores: one.train_s(*PORTABLE, processes=cores),
    ),
    "start": Row(
        "until the first step, {cores} processes",
        lambda one, cores: one.first_step_s(cores, torchrun=False),
        "by torchrun",
        lambda one, cores: one.first_step_s(cores, torchrun=True),
    ),
}
"""of the table, by the names that the command takes"""


def measure(row: Row, trainings: Trainings, rounds: int) -> dict[str, Any]:
    """Return the cells of a row."""
    cores = usable_cores()
    ours_s, theirs_s, ratio = compare(
        rounds, lambda: row.ours(trainings, cores), lambda: row.theirs(trainings, cores)
    )
    what, against = (text.format(cores=cores) for text in (row.what, row.against))
    cells = [what, f"{ours_s:.2f} s", against, f"{theirs_s:.2f} s", ratio]
    return {"cells": cells, "rounds": rounds, "epochs": trainings.epochs}


def lines_of(figures: page.Figures) -> list[str]:
    """Write the page."""
    title = "What a command does with a machine's cores"
    lines = [
        f"# {title}", "", "    python benchmarks/starter.py", "",
        "The default recipe; medians of the rounds, and with its quartiles the ratio of a round,",
        "the right one's time over the left one's. The seconds are those of the training loop, but",
        "of whole commands where two run at once, and until the first step. Each of eight",
        "micro-batches has 25 images, each of four 50.", "",
    ]  # fmt: skip
    heads = ["this", "time", "against", "time", "ratio", "rounds", "epochs"]
    rows = [[*row["cells"], str(row["rounds"]), str(row["epochs"])] for row in figures.values()]
    machines = sorted({row["machine"] for row in figures.values()})
    return [*lines, *page.table(heads, rows), "", f"On {'; '.join(machines)}."]


def main() -> None:
    """Measure the rows, and write the page after each."""
    parser = page.parser(__doc__)
    parser.add_argument("rows", nargs="*", choices=[[], *ROWS], metavar="ROW")
    parser.add_argument("--root", help="data.root of the runs")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=1)
    page.add_output(parser, "starter.json")
    arguments = parser.parse_args()
    trainings = Trainings("fashion_mnist", arguments.epochs, arguments.root)
    figures = page.read_figures(arguments.output)
    for name in arguments.rows or ROWS:
        task = partial(measure, ROWS[name], trainings, arguments.rounds)
        figures[name] = page.measure("python benchmarks/starter.py", task)
        ordered = {key: figures[key] for key in ROWS if key in figures}
        page.write_figures(arguments.output, ordered, lines_of(ordered))


if __name__ == "__main__":
    main()
