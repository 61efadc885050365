"""A small draw of the damages of benchmarks/faults.py, on the checkpoints of a real run."""

from __future__ import annotations

import dataclasses
import subprocess
from pathlib import Path
from types import SimpleNamespace

import fault_flips
import fault_runs
import pytest

from tests.distributed import forked_runs


def test_damage_is_detected_and_the_run_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of runs that are forked, and so have the kernels of the process that forks them."""
    forking = SimpleNamespace(**vars(subprocess) | {"Popen": forked_runs.popen})
    monkeypatch.setattr(fault_runs, "subprocess", forking)
    words = (*fault_flips.RECIPE.more, "--train.kernels", "native")
    monkeypatch.setattr(fault_flips, "RECIPE", dataclasses.replace(fault_flips.RECIPE, more=words))
    draws = list(fault_flips.run(tmp_path, count=24, seed=0))
    assert [f"{draw}: {draw.problem}" for draw in draws if draw.problem] == []
    assert len({draw.case for draw in draws}) == 24
    resumed = next(fault_flips.resume(tmp_path, seed=0))
    assert resumed.problem is None, resumed
