"""A save that is killed on its way leaves a whole checkpoint, and the next save works."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY
from tests.distributed.launch import environment

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="nothing can be forked there")


def test_killed_at_each_call_and_at_a_draw_of_system_calls(tmp_path: Path) -> None:
    """In a process of its own, because it forks; without strace the system calls are left out."""
    figures = tmp_path / "faults.json"
    command = [sys.executable, str(REPOSITORY / "benchmarks" / "faults.py"), "saves"]
    finished = subprocess.run(
        [*command, "--draws", "40", "--output", str(figures)],
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stdout + finished.stderr
    found = json.loads(figures.read_text())["saves"]
    assert found["losses"] == 0
    assert found["faults"] >= 40
    assert "saving a checkpoint is killed" in figures.with_suffix(".md").read_text()
    without = [note for note in found["notes"] if note.startswith("Without")]
    if without:
        pytest.skip(without[0])
