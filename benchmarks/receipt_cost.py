"""What a receipt costs: the digests of the run's state at the end of an epoch.

    python benchmarks/receipt_cost.py        1 minute; nothing else should run

The page is benchmarks/results/receipt_cost.md.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path

import page
import torch
from checkpoint_cost import Training

from trainer.base.tensor_files import Tensors
from trainer.training.run_state import RunState
from trainer.training.state_digest import POSITION_KEYS, digest_state

LARGE_PARAMETERS = 25_600_000
"""about as many as ResNet-50 has"""


def measure_share(training: Training) -> tuple[float, float]:
    """Train an epoch; return the seconds of its digests, and their share of the epoch."""
    epoch_s, _ = training.epoch(save=False)
    best = {k: v.clone() for k, v in training.train_step.module.state_dict().items()}
    start_s = time.perf_counter()
    training.snapshot.digests(RunState(step=training.step), best)
    digests_s = time.perf_counter() - start_s
    return digests_s, digests_s / (epoch_s + digests_s)


def measure_large(parameters: int) -> tuple[float, int]:
    """Return the seconds of a digest over this many parameters, momentum and best weights.

    Returns:
        With them the size of all that in bytes.
    """
    files: dict[str, Tensors] = {
        name: {str(place): torch.randn(parameters // 100) for place in range(100)}
        for name in ("model", "optimizer", "best")
    }
    small = {"run": dict.fromkeys(POSITION_KEYS), "optimizer": {}, "scaler": None}
    start_s = time.perf_counter()
    digest_state(files, small)
    size_bytes = sum(one.nbytes for tensors in files.values() for one in tensors.values())
    return time.perf_counter() - start_s, size_bytes


def main() -> None:
    """Measure and write the page."""
    parser = page.parser(__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    page.add_output(parser, "receipt_cost.md")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        training = Training(Path(name))
        seconds, shares = zip(
            *(measure_share(training) for _ in range(arguments.rounds)), strict=True
        )
    large = [measure_large(LARGE_PARAMETERS) for _ in range(arguments.rounds)]
    large_s, size_bytes = statistics.median(one for one, _ in large), large[0][1]
    lines = [
        "The digests at the end of an epoch, of the weights alone and of the whole state, on rank "
        "0;",
        f"medians of {arguments.rounds}:",
        "",
        f"- quicknet, an epoch of 45 steps on one process: "
        f"{1e3 * statistics.median(seconds):.1f} ms, {statistics.median(shares):.2%} of the epoch",
        f"- {LARGE_PARAMETERS / 1e6:.1f} million parameters with momentum and best weights, "
        f"{size_bytes / 1e6:,.0f} MB, the whole state: {large_s:.2f} s",
    ]
    command = page.command_of("receipt_cost.py", arguments, parser.parse_args([]))
    page.write(arguments.output, "What a receipt costs", command, lines)


if __name__ == "__main__":
    main()
