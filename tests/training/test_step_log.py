"""What steps have measured, while it waits for a log point."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.distributed.launch import run_worker

TWO_NUMBERS_BYTES = 2 * 4


@pytest.mark.parametrize(("processes", "microbatches"), [(1, [1, 4]), (2, [2, 4, 6])])
def test_what_waits_is_two_numbers_a_step(
    processes: int, microbatches: list[int], tmp_path: Path
) -> None:
    """A view into the step's sum of gradients would keep all of it: six are not a power of two."""
    runs = [
        {"train.microbatches": count, "train.reduction": reduction}
        for count in microbatches
        for reduction in ("exact", "fast")
    ]
    found = run_worker(processes, tmp_path / "found", name="measure", runs=runs, steps=3)
    for run, storage_bytes in zip(runs, found, strict=True):
        assert 0 < storage_bytes <= 3 * TWO_NUMBERS_BYTES, run
