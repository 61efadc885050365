"""gpu.py in small on the CPU: that its programs run, and that whatever stops it leaves a page."""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import gpu
import gpu_cases
import gpu_programs
import psutil
import pytest
import torch
from gpu_cases import graphs, same, suite

from tests.conftest import REPOSITORY
from tests.distributed.launch import run_forked
from trainer.base import compiler

TRIED = ("plain", "airbench", "cached", "modes")
"""programs that run other code than those before them"""


def start(output: Path, *words: str) -> subprocess.Popen[str]:
    script = str(REPOSITORY / "benchmarks" / "gpu.py")
    command = [sys.executable, script, "--device", "cpu", "--small", "--output", str(output)]
    pipe = subprocess.PIPE
    return subprocess.Popen([*command, *words], stdout=pipe, stderr=pipe, text=True)


def test_it_writes_a_page_of_the_parts_that_are_asked_for(tmp_path: Path) -> None:
    output = tmp_path / "gpu.json"
    process = start(output, "--part", "same", "--seconds", "250")
    printed, errors = process.communicate()
    assert process.returncode == 0, errors
    figures = json.loads(output.read_text())
    statuses = {name: one["status"] for name, one in figures["programs"].items()}
    assert statuses == {"machine": "done", "same": "done", "images": "done"}, statuses
    (of_ways,) = figures["programs"]["same"]["digests"].values()
    assert list(of_ways) == ["once", "2 processes"]
    assert len({*of_ways.values()}) == 1 and len(of_ways["once"]) == 64
    page = output.with_suffix(".md").read_text()
    assert page.strip() == printed.strip() == "\n".join(gpu.build_page(figures)).strip()
    assert "gpu.py --device cpu --small --part same --seconds 250.0\n" in page
    assert "differs" not in page and "missing" not in page
    assert "no GPU" in page and "none of these figures means anything" in page


def test_a_signal_leaves_a_page_that_says_what_is_missing(tmp_path: Path) -> None:
    output = tmp_path / "gpu.json"
    process = start(output, "--part", "tests")
    page = output.with_suffix(".md")
    end_s = time.monotonic() + 240
    while not (page.exists() and f"that need a GPU | {gpu.BEGUN} |" in page.read_text()):
        assert process.poll() is None and time.monotonic() < end_s
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate()
    assert process.returncode == 128 + signal.SIGTERM, errors
    text = page.read_text()
    assert "| the tests that need a GPU | stopped by SIGTERM |" in text
    assert "| the images | not run |" in text


def test_a_program_that_is_late_or_fails_is_stopped_and_named(tmp_path: Path) -> None:
    task = gpu_cases.Task("cpu", small=True, work_dir=str(tmp_path), root=None)
    late = gpu_programs.Program("same", "late", "", "prepare", 1)
    found, stopped = gpu.run_program(late, task, limit_s=0)
    assert (found["status"], stopped) == ("stopped after its 0 s", None)
    fails = gpu_programs.Program("same", "fails", "", "nothing", 1)
    found, _ = gpu.run_program(fails, task, limit_s=60)
    assert found["status"] == "failed"
    assert "No module named 'gpu_cases.nothing'" in found["log"][-1]


def test_without_a_gpu_nothing_is_measured(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(sys, "argv", ["gpu.py", "--output", str(tmp_path / "gpu.json")])
    with pytest.raises(SystemExit, match="2"):
        gpu.main()
    assert "torch finds no GPU" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_what_a_program_has_started_ends_with_it() -> None:
    """Also a launcher in a session of its own."""
    text = "import subprocess, time; subprocess.Popen(['sleep', '600'], start_new_session=True); "
    text += "print('started', flush=True); time.sleep(600)"
    words = [sys.executable, "-c", text]
    with subprocess.Popen(words, stdout=subprocess.PIPE, start_new_session=True) as process:
        assert process.stdout and process.stdout.readline()
        started = psutil.Process(process.pid).children()
        gpu.end(process)
    assert len(started) == 1
    assert psutil.wait_procs(started, timeout=30)[1] == []


@pytest.mark.parametrize("part", ["speed", "photos", "modes"])
def test_the_programs_find_figures(part: str, prepared: Path, tmp_path: Path) -> None:
    all_of_it = [one for one in gpu_programs.programs("cpu", small=True) if one.part == part]
    entries: dict[str, Any] = {}
    for program in all_of_it:
        if program.needs or program.name not in TRIED:
            continue  # as another one, or for a machine with more packages
        options = dict(program.options)
        if "variants" in options:
            few = itertools.islice(options["variants"].items(), 2)
            options["variants"] = {**dict(few), "refused": {"model.name": "nothing"}}
        found = run_here(tmp_path, program.module, prepared, options)
        entries[program.name] = {"title": program.title, "status": gpu.DONE, **found}
    rows = list(gpu_programs.rows_of(entries))
    assert rows
    lines = gpu_programs.PARTS[part][1](entries)
    for row in rows:
        if row["title"] == "refused":
            assert row["status"].startswith("failed: model.name, ")
        else:
            assert min(row["images_per_second"]) > 0 and row["peak_mb"] > 0
        assert any(line.startswith(f"| {row['title']} | ") for line in lines)


def test_graphs_are_asked_for_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """None is recorded on a CPU, so the replays are made up."""
    replayed: list[object] = []
    monkeypatch.setattr(torch.cuda.CUDAGraph, "replay", replayed.append)
    device = torch.device("cuda")
    usual = compiler.options("max-autotune", device)
    assert "triton.cudagraphs" not in usual
    for recorded in (False, True):
        with graphs.watch_graphs(recorded=recorded) as count:
            asked = compiler.options("max-autotune", device)
            torch.cuda.CUDAGraph.replay("a graph")
            assert count()["graph_replays"] == 1
        assert asked == usual | ({"triton.cudagraphs": True} if recorded else {})
    assert replayed == ["a graph"] * 2
    assert compiler.options("max-autotune", device) == usual
    row = {"title": "one", "status": gpu.DONE, "graph_replays": 12, "graph_skips": 3}
    assert "| one | 12 | 3 |" in gpu_programs.modes_lines({"one": row})


def test_the_tests_are_counted(tmp_path: Path) -> None:
    """Some of those that a CPU can do, too."""
    words = ["-k", "plain or not_tf32"]
    found = run_here(tmp_path, "suite", tmp_path, {"words": words})
    assert found["exit_code"] == 0 and found["failed"] == 0, found
    assert found["passed"] == 2
    assert sum(found["skips"].values()) == found["skipped"] > 0
    entry = {"title": "", "status": gpu.DONE, **found}
    lines = gpu_programs.tests_lines({"tests": entry})
    assert lines[0].startswith(f"{found['passed']} passed, 0 failed, {found['skipped']} skipped")
    assert "| the CPU has nothing of this | " in "\n".join(lines)


def test_tests_that_ended_are_kept_whatever_comes_later() -> None:
    saved: list[dict[str, Any]] = []
    outcomes = suite.Outcomes(saved.append)

    def end(name: str, *parts: Any) -> None:
        for when, outcome in zip(("setup", "call", "teardown"), parts, strict=True):
            reason = None if outcome == "passed" else "it left something"
            nodeid = f"tests/gpu/test_it.py::{name}"
            outcomes.pytest_runtest_logreport(
                pytest.TestReport(nodeid, ("", 0, ""), {}, outcome, reason, when)
            )

    end("test_a", "passed", "passed", "passed")
    assert saved[-1]["passed"] == 1
    end("test_b", "passed", "passed", "failed")
    assert saved[-1] == {
        "passed": 1,
        "failed": 1,
        "skipped": 0,
        "failures": {"test_it.py::test_b": "it left something"},
        "skips": {},
    }


def test_runs_that_end_together_are_saved_one_after_the_other(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """They go into one file."""
    together = threading.Barrier(len(same.WAYS))
    saving = threading.Lock()
    saved: dict[str, Any] = {}

    def train(*_: object) -> str:
        together.wait(60)
        return "a" * 64

    def save(figures: dict[str, Any]) -> None:
        assert saving.acquire(blocking=False)
        saved.update(json.loads(json.dumps(figures)))
        time.sleep(0.01)
        saving.release()

    monkeypatch.setattr(os, "cpu_count", lambda: 16)
    monkeypatch.setattr(same, "train", train)
    options = {"precisions": ["fp32", "bf16"], "ways": list(same.WAYS)}
    same.run(gpu_cases.Task("cpu", False, str(tmp_path), None, options), save)
    assert [sorted(one) for one in saved["digests"].values()] == [sorted(same.WAYS)] * 2


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with the images."""
    folder = tmp_path_factory.mktemp("prepared")
    assert run_here(folder, "prepare", folder, {})["decoded"] > 0
    return folder


def run_here(folder: Path, module: str, work_dir: Path, options: dict[str, Any]) -> Any:
    """Run a program in a process that has the slow imports behind it."""
    task = gpu_cases.Task("cpu", small=True, work_dir=str(work_dir), root=None, options=options)
    output = folder / "found.json"
    output.unlink(missing_ok=True)
    places = os.pathsep.join([str(REPOSITORY), str(REPOSITORY / "benchmarks")])
    words = ["-m", "gpu_cases", module, json.dumps(dataclasses.asdict(task)), str(output)]
    finished = run_forked(1, folder, *words, PYTHONPATH=places)
    assert finished.returncode == 0, finished.stderr
    return json.loads(output.read_text())


def test_a_weight_that_differs_is_marked() -> None:
    digests = {"bf16": {"once": "a" * 64, "again": "a" * 64, "2 processes": "b" * 64}}
    lines = gpu_programs.same_lines({"same": {"digests": digests}})
    first, other = "a" * 12, "b" * 12
    assert lines[-1] == f"| `bf16` | `{first}` | `{first}` | `{other}` **differs** |"
    digests["bf16"] |= {"once": "exit codes [1]", "2 processes": "a" * 64}
    lines = gpu_programs.same_lines({"same": {"digests": digests}})
    assert lines[-1] == f"| `bf16` | exit codes [1] | `{first}` | `{first}` |"
