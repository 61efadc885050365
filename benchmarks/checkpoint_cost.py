"""What checkpoints cost: epochs of quicknet with a checkpoint against epochs without.

    python benchmarks/checkpoint_cost.py        6 minutes; nothing else should run

Epochs with and without take turns in one process of as many threads as there are cores, so the
thread that writes has no core of its own. The page is benchmarks/results/checkpoint_cost.md.
"""

from __future__ import annotations

import functools
import statistics
import tempfile
import time
from pathlib import Path

import page
import paired
import torch
from quicknet_case import QUICKNET
from step_times import Case

from trainer.base import numerics
from trainer.checkpoint.writing import Checkpoints
from trainer.config.schema import CheckpointConfig, RunConfig
from trainer.data.sampling import microbatch_sizes
from trainer.ranks import process_group, processes
from trainer.run.metrics_log import MetricsLog
from trainer.training.run_state import RunState
from trainer.training.snapshot import Snapshot

STEPS = 45
"""of an epoch: 9,000 images in steps of 200"""


class Training:
    """Steps of quicknet, and what saving it takes."""

    def __init__(self, folder: Path) -> None:
        accelerator = process_group.create_accelerator(RunConfig())
        torch.set_num_threads(processes.usable_cores())
        numerics.choose_kernels(deterministic=True)
        self.case = Case(accelerator, QUICKNET)
        self.train_step = self.case.lockstep("exact")
        self.sizes = microbatch_sizes(self.case.batch_size, self.case.microbatches)
        module, optimizer = self.train_step.module, self.train_step.optimizer
        self.snapshot = Snapshot(accelerator, module, optimizer, None, {}, {})
        self.checkpoints = Checkpoints(folder / "checkpoints", CheckpointConfig())
        self.metrics = MetricsLog(folder / "metrics.jsonl")
        self.step = 0

    def epoch(self, save: bool) -> tuple[float, float]:
        """Train an epoch; return its seconds, and those in which the loop waited for the copy."""
        start_s = time.perf_counter()
        if save:
            self.save()
        blocked_s = time.perf_counter() - start_s
        for _ in range(STEPS):
            self.step += 1
            self.train_step(self.step, self.case.images, self.case.targets, self.sizes)
        return time.perf_counter() - start_s, blocked_s

    def save(self) -> None:
        """Save as the engine does."""
        self.metrics.write([{"event": "step", "step": self.step, "loss": 0.5}] * STEPS)
        best = {
            name: tensor.clone() for name, tensor in self.train_step.module.state_dict().items()
        }
        files, small = self.snapshot.collect(RunState(step=self.step), best)
        self.checkpoints.save(self.step, files, small, first=self.metrics.sync)


def main() -> None:
    """Measure and write the page."""
    parser = page.parser(__doc__)
    parser.add_argument("--rounds", type=int, default=16)
    page.add_output(parser, "checkpoint_cost.md")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        training = Training(Path(name))
        epochs = {str(save): functools.partial(training.epoch, save) for save in (True, False)}
        with_one, without = paired.take_turns(epochs, arguments.rounds).values()
        training.checkpoints.wait(needed=True)
        newest = max((Path(name) / "checkpoints").iterdir())
        size_bytes = sum(path.stat().st_size for path in newest.iterdir())
    ratios = paired.ratios([one_s for one_s, _ in with_one], [one_s for one_s, _ in without])
    shares = [blocked_s / one_s for one_s, blocked_s in with_one]
    lines = [
        "quicknet on one process, a checkpoint an epoch of 45 steps: weights, optimiser,",
        f"best weights, {size_bytes / 1e6:.1f} MB in all. Median, and quartiles, of "
        f"{arguments.rounds} pairs of",
        "epochs, one with a checkpoint at its beginning and one without:",
        "",
        f"- time with over time without: {paired.spread(ratios)}",
        f"- share of the time that the loop waits for the copy: {statistics.median(shares):.2%}",
    ]
    command = page.command_of("checkpoint_cost.py", arguments, parser.parse_args([]))
    page.write(arguments.output, "What checkpoints cost", command, lines)


if __name__ == "__main__":
    main()
