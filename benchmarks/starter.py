"""What `python train.py` does with a machine's cores: one run, two at once, small pieces, a start.

    python benchmarks/starter.py [--root DIR]       15 minutes; nothing else should run

Whole processes, in turn. The page is benchmarks/results/starter.md.
"""

from __future__ import annotations

import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

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
        words = ["--train.epochs", str(self.epochs), "--checkpoint.every_epochs", "null"]
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


def measure(trainings: Trainings, rounds: int) -> list[list[str]]:
    """Return the rows of the table."""
    cores = usable_cores()
    rows = []

    def add(
        what: str, ours: Callable[[], float], against: str, theirs: Callable[[], float]
    ) -> None:
        ours_s, theirs_s, ratio = compare(rounds, ours, theirs)
        rows.append([what, f"{ours_s:.2f} s", against, f"{theirs_s:.2f} s", ratio])
        print(rows[-1], flush=True)

    add(
        f"one run, {cores} processes of one thread",
        lambda: trainings.train_s(processes=cores),
        f"one process of {cores} threads",
        lambda: trainings.train_s("--threads", str(cores), processes=1),
    )
    add(
        "one run after the other, twice the time of one",
        lambda: 2 * trainings.whole_s(1, cores),
        f"two runs at once, {cores} processes each",
        lambda: trainings.whole_s(2, cores),
    )
    add(
        "one process, four micro-batches",
        lambda: trainings.train_s(processes=1),
        "eight micro-batches",
        lambda: trainings.train_s("--train.microbatches", "8", processes=1),
    )
    add(
        f"until the first step, {cores} processes",
        lambda: trainings.first_step_s(cores, torchrun=False),
        "by torchrun",
        lambda: trainings.first_step_s(cores, torchrun=True),
    )
    return rows


def main() -> None:
    """Measure and write the page."""
    parser = page.parser(__doc__)
    parser.add_argument("--root", help="data.root of the runs")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=2)
    page.add_output(parser, "starter.md")
    arguments = parser.parse_args()
    epochs, rounds = arguments.epochs, arguments.rounds
    rows = measure(Trainings("fashion_mnist", epochs, arguments.root), rounds)
    lines = [
        f"The default recipe, {epochs} epochs; medians of {rounds} rounds, and the ratio of each",
        "round with its quartiles. The first and the third row are the seconds of the training",
        "loop, the others those of whole commands. Each of eight micro-batches has 25 images, each",
        "of four 50.",
        "",
        *page.table(["this", "time", "against", "time", "ratio"], rows),
    ]
    command = page.command_of("starter.py", arguments, parser.parse_args([]))
    page.write(arguments.output, "What a command does with a machine's cores", command, lines)


if __name__ == "__main__":
    main()
