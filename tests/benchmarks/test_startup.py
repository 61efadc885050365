"""The benchmark of starts: that it measures what it says; no times."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import apart
import startup

from trainer.ranks.exit_codes import STOPPED_ON_REQUEST


def test_the_help_is_the_help() -> None:
    finished = subprocess.run(startup.HELP, capture_output=True, text=True, check=True)
    assert "--train.epochs" in finished.stdout


def test_the_first_step_is_one_step(shared_data: Path, tmp_path: Path) -> None:
    command = startup.first_step(str(shared_data / "fashion-mnist"), tmp_path / "run")
    apart.run(command, STOPPED_ON_REQUEST)
    assert json.loads((tmp_path / "run" / "status.json").read_text())["step"] == 1
