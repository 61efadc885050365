"""A small draw of the campaign of benchmarks/faults.py, and a launcher that is killed."""

from __future__ import annotations

import sys
from pathlib import Path

import apart
import fault_kills
import pytest
from fault_kills import Campaign
from fault_runs import Attempt, Recipe, find_processes

RECIPE = Recipe("digits", 10, ("--train.epochs", "10"))


def test_a_run_that_is_killed_at_random_ends_as_if_undisturbed(tmp_path: Path) -> None:
    """The draws of this seed contain each victim, one and two processes, and a start."""
    campaign = Campaign(RECIPE, tmp_path, runs=1, seed=3101, kills=(4, 4))
    (outcome,) = fault_kills.run(campaign)
    assert outcome.problems == []
    assert len(outcome.kills) == 4
    assert {kill.victim for kill in outcome.kills} == {*fault_kills.VICTIMS, fault_kills.ONLY_ONE}
    assert {kill.processes for kill in outcome.kills} == {1, 2}


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells of a parent's end")
def test_ranks_end_with_their_launcher_and_the_folder_can_be_taken_again(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    attempt = Attempt(folder, RECIPE, processes=2)
    try:
        assert attempt.wait_until((folder / "metrics.jsonl").exists)
        assert len(attempt.ranks()) == 2
        attempt.kill([attempt.launcher.pid])
        attempt.wait_until_gone(limit_s=10)
        Attempt(folder, RECIPE, processes=1).finish()
    finally:
        attempt.kill_everything()
    assert apart.read_results(folder)["train"]["processes"] == 1
    assert not find_processes(folder)
