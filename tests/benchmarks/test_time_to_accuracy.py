"""The benchmark of time to accuracy: that both recipes run, with tiny sizes; no times."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest
import time_to_accuracy as benchmark


@pytest.mark.usefixtures("forked")
def test_both_recipes_run_and_are_compared(tmp_path: Path) -> None:
    arguments = argparse.Namespace(
        images=1200, lab_epochs=2, threads=1, root=None, data="digits", seeds=2,
        more=["--train.epochs", "2", "--processes", "1"],
    )  # fmt: skip
    found = benchmark.measure(arguments)
    for outcomes in found.values():
        assert len(outcomes) == 2
        assert all(0.15 < outcome.accuracy <= 1 for outcome in outcomes)
        assert all(0 < outcome.train_s < outcome.process_s for outcome in outcomes)
    page = "\n".join(benchmark.table(found))
    mean = sum(outcome.accuracy for outcome in found["the lab's recipe"]) / 2
    assert f"| the lab's recipe | {mean:.4f} |" in page
    fast = found["`configs/fashion_mnist_fast.yaml`"]
    plain = sum(outcome.accuracy for outcome in fast) / 2
    assert f"| `configs/fashion_mnist_fast.yaml` | {plain:.4f} |" in page
