"""Run `python -m trainer COMMAND` in this process."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from trainer import __main__

Capture = pytest.CaptureFixture[str]


def arguments_id(value: list[str] | str) -> str:
    """Name a parametrised test by its arguments and not by the message that it expects."""
    return " ".join(value) if isinstance(value, list) else ""


def run_command(capsys: Capture, *words: str | Path) -> tuple[int, str, str]:
    """Run a command; return its exit code, standard output and standard error."""
    capsys.readouterr()
    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as ended:
        patch.setattr(sys, "argv", ["trainer", *map(str, words)])
        __main__.main()
    output = capsys.readouterr()
    assert isinstance(ended.value.code, int)
    return ended.value.code, output.out, output.err
