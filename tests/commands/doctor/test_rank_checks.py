"""`python -m trainer doctor`: several processes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from tests.distributed.launch import run_forked
from tests.runs import words
from trainer.base.errors import RankError
from trainer.commands import doctor
from trainer.commands.doctor import rank_checks, resources
from trainer.commands.doctor.finding import Finding, Findings, merge
from trainer.config.schema import RunConfig
from trainer.ranks import process_group

RANKED = """
import os
from models.lab import LabCNN

class Ranked(LabCNN):
    def __init__(self, num_classes, in_channels, image_size):
        super().__init__(num_classes, in_channels, image_size)
        next(self.parameters()).data.fill_(float(os.environ["RANK"]))
"""

RANK = rank_checks.RankReport(
    host="a", local_count=2, time_s=100.0, config=RunConfig(), start=("w", "i", {"torch": "2"}),
    resident_bytes=10, needed_bytes=30, available_bytes=100, findings=[],
)  # fmt: skip


def test_two_processes_under_a_launcher(tmp_path: Path) -> None:
    """Only rank 0 prints, for both; two mistakes that one process would not show."""
    (tmp_path / "ranked.py").write_text(RANKED)
    more = ["--model.name", f"{tmp_path / 'ranked.py'}:Ranked", "--model.args", "{}"]
    more += ["--train.microbatches", "3"]
    doctor = ["-m", "trainer", "doctor", "--json", *words(tmp_path / "run", *more)]
    finished = run_forked(2, tmp_path, *doctor)
    assert finished.returncode == 2
    found = json.loads(finished.stdout)
    assert found["works"] is False
    findings = {finding["name"]: finding for finding in found["findings"]}
    assert len(findings) == len(found["findings"])
    assert findings["processes"]["text"] == "2, 2 of them on this machine"
    assert "WORLD_SIZE=2" in findings["launch variables"]["text"]
    assert findings["hosts"]["text"].endswith(": 2 of the processes")
    assert "MB/s for 8 MB" in findings["all-reduce"]["text"]
    assert findings["clocks"]["state"] == findings["configuration"]["state"] == "ok"
    assert "3 do not divide by 2 processes" in findings["train.microbatches"]["text"]
    assert "rank 1 begins with other weights than rank 0" in findings["same start"]["text"]
    assert finished.stderr.count("a run would fail here: train.microbatches, same start\n") == 1


def compare(*ranks: rank_checks.RankReport) -> dict[str, Finding]:
    """Return the findings by name that are not ok."""
    findings = Findings()
    rank_checks.compare(ranks, findings)
    by_name = {finding.name: finding for finding in findings}
    return {name: finding for name, finding in by_name.items() if finding.state != "ok"}


def test_equal_ranks_have_no_problems() -> None:
    assert compare(RANK, RANK) == {}


def test_clocks_that_differ() -> None:
    single = replace(RANK, local_count=1)
    found = compare(single, replace(single, host="b", time_s=107.5))
    assert list(found) == ["clocks"]
    assert found["clocks"].text == "that of b is 7.5 s ahead of that of a"
    assert found["clocks"].state == "warning"


def test_a_machine_with_more_ranks_than_its_launcher_says() -> None:
    found = compare(RANK, RANK, RANK)
    assert found["hosts"].text == "a has 3 processes, but LOCAL_WORLD_SIZE says 2 there"


def test_configurations_that_differ() -> None:
    found = compare(RANK, replace(RANK, config=RunConfig(seed=1)))
    assert found["configuration"].text == "rank 0 against rank 1 on a: seed: 0 against 1"
    found = compare(RANK, replace(RANK, config=None))
    assert "could be read on one of them only" in found["configuration"].text
    assert compare(RANK, replace(RANK, config=RunConfig(output_dir="other"))) == {}


def test_images_that_differ_are_a_problem_and_versions_a_warning() -> None:
    found = compare(RANK, replace(RANK, start=("w", "other", {"torch": "2"})))
    assert found["same start"].state == "problem"
    assert "the images of rank 1 differ from those of rank 0" in found["same start"].text
    found = compare(RANK, replace(RANK, start=("w", "i", {"torch": "3"})))
    assert found["same start"].state == "warning"
    assert found["same start"].text.endswith("rank 0 against rank 1: torch 2 against 3")


def test_memory_counts_all_processes_of_a_machine() -> None:
    assert [finding.state for finding in resources.check_memory([RANK] * 3)] == ["ok"]
    assert [finding.state for finding in resources.check_memory([RANK] * 4)] == ["problem"]
    other = replace(RANK, host="b", available_bytes=5)
    found = resources.check_memory([RANK, other])
    assert [finding.state for finding in found] == ["ok", "problem"]
    assert found[1].text.startswith("b: ")


def test_other_ranks_list_only_what_is_wrong_on_them() -> None:
    fine, bad = Finding("cores", "ok", "2"), Finding("data", "problem", "none")
    merged = merge(
        [
            ("rank 0 on a", [fine]),
            ("rank 1 on a", [replace(fine, text="3")]),
            ("rank 2 on b", [fine, bad]),
            ("rank 3 on b", [fine, bad]),
        ]
    )
    assert merged == [fine, replace(bad, text="rank 2 on b: none")]


def test_processes_that_do_not_meet(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rank 0 lists it; another one says it, as rank 0 may not be there."""
    for name, value in {
        "RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": "1", "ACCELERATE_USE_CPU": "true",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(rank_checks, "TIMEOUT_S", 0.2)

    def fail_to_meet(config: RunConfig) -> None:
        raise RuntimeError("1/2 clients joined")

    monkeypatch.setattr(process_group, "create_accelerator", fail_to_meet)
    (problem,) = [one for one in doctor.diagnose([]) if one.state == "problem"]
    assert problem.name == "processes"
    assert "have not met within 0.2 s (RuntimeError: 1/2 clients joined)" in problem.text
    assert "MASTER_ADDR must be reachable" in problem.advice
    monkeypatch.setenv("RANK", "1")
    with pytest.raises(RankError, match=r"have not met within 0\.2 s .*refused"):
        doctor.diagnose([])
