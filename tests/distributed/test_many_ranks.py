"""Seven, eight and twelve processes have the bits of one, and all of them make the same calls.

Torch compares the calls before each collective. Seven and twelve are no powers of two: their sums
exchange parts of the tree.
"""

from __future__ import annotations

import os
from itertools import cycle
from pathlib import Path
from typing import Any

import pytest

from tests.distributed import test_lockstep
from tests.distributed.matrix import FAMILIES, OPTIMIZERS, matrix, runs_of
from tests.distributed.test_lockstep import EARLY, ODD_MODEL, QUICKNET, RUNS, SMALL

VARIABLE = "LOCKSTEP_MANY_RANKS"
"""whether all runs are done"""

BUCKET_BYTES = 2**13
"""so that gradients of small networks leave during the backward pass in several pieces"""


@pytest.fixture(autouse=True)
def compare_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_DISTRIBUTED_DEBUG", "DETAIL")


def check(processes: int, folder: Path, runs: list[dict[str, Any]], *, early: bool) -> None:
    """Compare runs with two micro-batches a process with those of one process."""
    runs = [run | changes(run, processes) for run in runs]
    sizes = {"bucket_bytes": [bucket_bytes(run) for run in runs]} if early else {}
    one = test_lockstep.train(1, folder, runs)
    many = test_lockstep.train(processes, folder, runs, **sizes)
    for run, expected, found in zip(runs, one, many, strict=True):
        assert found == expected, run


def changes(run: dict[str, Any], processes: int) -> dict[str, Any]:
    """Return the keys that make two micro-batches a process, none of which has a single image."""
    found: dict[str, Any] = {"train.microbatches": 2 * processes}
    return found | ({"train.batch_size": 90} if is_large(run) else {})


def bucket_bytes(run: dict[str, Any]) -> int:
    return 2**20 if is_large(run) else BUCKET_BYTES


def is_large(run: dict[str, Any]) -> bool:
    return bool(run["model.name"] == "efficientnet_lite0")


@pytest.mark.parametrize("early", [False, True])
def test_seven_processes(early: bool, tmp_path: Path) -> None:
    check(7, tmp_path, [ODD_MODEL if early else QUICKNET], early=early)


@pytest.mark.skipif(VARIABLE not in os.environ, reason=f"takes long; {VARIABLE}=1 lets it run")
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("early", [False, True])
@pytest.mark.parametrize("processes", [7, 8, 12])
def test_all(processes: int, early: bool, tmp_path: Path) -> None:
    """Every family, with an optimiser and parts of a run, and every run that other tests have."""
    wanted = set(zip(FAMILIES, cycle(OPTIMIZERS)))
    chosen = [one for one in matrix() if (one["model.name"], one["optimizer.name"]) in wanted]
    families = [SMALL | one for one in runs_of(chosen, tmp_path)]
    check(processes, tmp_path, [*families, *(EARLY if early else RUNS)], early=early)
