"""A small draw of the damages of benchmarks/faults.py, on the checkpoints of a real run."""

from __future__ import annotations

from pathlib import Path

import fault_flips


def test_damage_is_detected_and_the_run_goes_on(tmp_path: Path) -> None:
    draws = list(fault_flips.run(tmp_path, count=24, seed=0))
    assert [f"{draw}: {draw.problem}" for draw in draws if draw.problem] == []
    assert len({draw.case for draw in draws}) == 24
    resumed = next(fault_flips.resume(tmp_path, seed=0))
    assert resumed.problem is None, resumed
