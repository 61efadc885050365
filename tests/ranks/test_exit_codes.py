"""How a command that fails ends, whatever becomes of what the launcher is told."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY
from trainer.base.errors import UserError
from trainer.ranks import exit_codes


def test_a_launcher_that_cannot_be_told_costs_no_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(tmp_path / "none" / "error.json"))
    with pytest.raises(SystemExit) as end, exit_codes.exit_with_code():
        raise UserError("optimizer.lr: must be positive and finite, found -1")
    assert end.value.code == exit_codes.USER_CAN_FIX
    assert capsys.readouterr().err == "optimizer.lr: must be positive and finite, found -1\n"


@pytest.mark.parametrize("words", [["train.py", "--config", "digits"], ["-m", "trainer", "models"]])
def test_a_folder_that_is_gone(words: list[str], tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    start = 'cd folder && rmdir ../folder && exec "$@"'
    words = [str(REPOSITORY / word) if word.endswith(".py") else word for word in words]
    ended = subprocess.run(
        ["bash", "-c", start, "bash", sys.executable, *words],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == exit_codes.USER_CAN_FIX
    assert ended.stderr.startswith("the current folder has been removed; change to another one")
    assert ended.stderr.count("\n") == 1
