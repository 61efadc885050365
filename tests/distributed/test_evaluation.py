"""Evaluation in several processes equals evaluation in one, to the sample and to the bit."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.distributed.launch import run_worker

SIZES = [1, 3, 499, 500, 501, 1001, 1290]


@pytest.mark.parametrize("processes", [2, 3])
def test_predictions_do_not_depend_on_the_process_count(processes: int, tmp_path: Path) -> None:
    single = run_worker(1, tmp_path / "single", name="predict", sizes=SIZES)
    several = run_worker(processes, tmp_path / "several", name="predict", sizes=SIZES)
    assert [len(outcome["target"]) for outcome in single] == SIZES
    assert several == single
