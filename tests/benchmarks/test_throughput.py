"""The throughput benchmark: that it runs, with tiny sizes, and what its page says; no times."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path

import pytest
import throughput
from contenders import BOUNDS, CONTENDERS, ONE_PROCESS, OURS
from throughput_cases import Figures
from throughput_page import build_page
from turns import Process

ALWAYS_THERE = {OURS, ONE_PROCESS, *BOUNDS.values(), "lab", "accelerate_example"}


@pytest.mark.usefixtures("forked_contenders")
def test_it_runs_with_what_is_installed_and_names_what_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "throughput.json"
    words = ["--case", "lab_cnn_augmented", "--data", "digits", "--images", "200", "--rounds", "2"]
    words += ["--groups", "1", "--threads", "1", "--output", str(output)]
    monkeypatch.setattr(sys, "argv", ["throughput.py", *words])
    throughput.main()
    figures = json.loads(output.read_text())["lab_cnn_augmented"]
    assert ", commit " in figures["machine"]
    took_part, left_out = set(figures["seconds"]), set(figures["left_out"])
    assert took_part >= ALWAYS_THERE
    assert took_part | left_out == set(CONTENDERS) and not took_part & left_out
    for seconds in figures["seconds"].values():
        assert len(seconds) == 2 and min(seconds) > 0
    page = output.with_suffix(".md").read_text()
    for name in took_part:
        assert f"| {CONTENDERS[name].title} | " in page
    for name in left_out:
        assert CONTENDERS[name].title in page.split("Left out, as not installed:")[1]


def figures(**seconds: list[float]) -> Figures:
    return Figures(
        case="lab_cnn",
        images=600,
        batch_size=100,
        threads=1,
        seconds=seconds,
        versions={"torch": "2"},
        left_out=["timm_loop"],
        command="python benchmarks/throughput.py",
        minutes=1.0,
        machine="a machine, commit 0123abc",
    )


def test_ratios_are_formed_within_a_round_and_the_best_peer_is_the_nearest() -> None:
    measured = figures(
        lockstep_ranks=[1.0, 2.0, 3.0],
        lockstep=[2.0, 4.0, 6.0],
        bound_ranks=[0.9, 1.8, 2.7],
        bound=[1.0, 2.0, 3.0],
        lab=[2.0, 4.0, 6.0],
        skorch_net=[1.5, 3, 9],
    )
    assert measured.best_peer() == "skorch_net"
    lines = build_page({"lab_cnn": dataclasses.asdict(measured)})
    skorch = "1.500 (1.500 to 3.000), skorch | 0.900 (0.900 to 0.900) | 1.500 |"
    assert f"| The lab's net | default | 300 | {skorch}" in lines
    skorch = "0.750 (0.750 to 1.500), skorch | 0.500 (0.500 to 0.500) | 1.500 |"
    assert f"|  | one process | 150 | {skorch}" in lines
    both = "2.000 (2.000 to 2.000) | 1.000 (1.000 to 1.000)"
    assert f"| the lab's loop | 100 | 150 | 300 | {both} |" in lines
    own_bound = "| compute bound, one process | 200 | 300 | 600 |  | 0.500 (0.500 to 0.500) |"
    assert own_bound in lines
    assert "Left out, as not installed: timm, `train.py`." in lines


def test_figures_of_one_of_our_forms_are_enough() -> None:
    measured = figures(lockstep=[1.0, 2.0], lab=[2.0, 4.0])
    lines = build_page({"lab_cnn": dataclasses.asdict(measured)})
    row = "| The lab's net | one process | 450 | 2.000 (2.000 to 2.000), the lab's loop |  |  |"
    assert row in lines
    assert "| the lab's loop | 2.00 |" in lines


def test_a_contender_that_fails_shows_what_it_printed(tmp_path: Path) -> None:
    words = ["-c", "raise SystemExit('no such thing')"]
    with (
        Process(words, [], tmp_path / "skorch_net.log", threads=1) as process,
        pytest.raises(RuntimeError, match=r"skorch_net failed:\nno such thing"),
    ):
        process.wait_until_ready()
