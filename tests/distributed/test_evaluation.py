"""Evaluation in several processes equals evaluation in one, to the sample and to the bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.distributed.launch import run_worker

SIZES = [1, 3, 499, 500, 501, 1001]
"""fewer images than processes, and around whole blocks of 500"""


@pytest.fixture(scope="module")
def single(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return run_worker(1, tmp_path_factory.mktemp("one") / "out", name="predict", sizes=SIZES)


@pytest.mark.parametrize("processes", [2, 3])
def test_predictions_do_not_depend_on_the_process_count(
    processes: int, single: Any, tmp_path: Path
) -> None:
    several = run_worker(processes, tmp_path / "several", name="predict", sizes=SIZES)
    assert [len(outcome["target"]) for outcome in single] == SIZES
    assert several == single
