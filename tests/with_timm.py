"""Do something with timm, in a process forked from one with the other slow imports behind it."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from tests.distributed.launch import fork_ranks, run_python

# Where torchvision cannot be imported, neither can `accelerate launch` be used, so timm has a
# folder of its own there, which launch/test.sh fills.
APART = Path(sys.prefix) / "timm"


def run_with_timm(folder: Path, *words: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Run what `run_forked` runs in one process, which finds timm; skip where there is none.

    Args:
        folder: for its output.
    """
    if not APART.is_dir() and importlib.util.find_spec("timm") is None:
        pytest.skip("timm is not installed; ./launch/test.sh installs it for this test")
    output, errors = folder / "timm.out", folder / "timm.err"
    (code,) = fork_ranks(1, env, output, errors, _run, *words)
    return subprocess.CompletedProcess(words, code, output.read_text(), errors.read_text())


def _run(*words: str) -> None:
    sys.path.insert(0, str(APART))
    run_python(*words)
