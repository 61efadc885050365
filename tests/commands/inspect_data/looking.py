"""Look at data with `python -m trainer inspect-data`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.commands.command import Capture, run_command
from tests.conftest import REPOSITORY

FOLDER = REPOSITORY / "configs" / "folder.yaml"
WRONG = (5, 60, 150)
"""numbers of test pictures in the folder of another class"""


def inspect(capsys: Capture, *more: str | Path) -> Any:
    """Return what the command finds."""
    code, output, errors = run_command(capsys, "inspect-data", *more, "--json")
    assert (code, errors) == (0, "")
    return json.loads(output)


def of_folder(root: Path) -> list[str]:
    return ["--config", str(FOLDER), "--data.root", str(root), "--threads", "1"]
