"""Classify pictures with `python -m trainer predict`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.commands.command import Capture, run_command


def predict(capsys: Capture, *words: str | Path) -> list[dict[str, Any]]:
    """The JSON lines."""
    code, output, errors = run_command(capsys, "predict", *words, "--json")
    assert code == 0, errors
    return [json.loads(line) for line in output.splitlines()]
