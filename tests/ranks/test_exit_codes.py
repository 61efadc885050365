"""How a command that fails ends, whatever becomes of what the launcher is told."""

from __future__ import annotations

from pathlib import Path

import pytest

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
