"""The run whose receipt the tests forge, sign and verify."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.commands.receipt.forging import SIX_EPOCHS
from tests.runs import train_here


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of six epochs of five steps, with a checkpoint after each."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    assert train_here(folder, *SIX_EPOCHS) == 0
    return folder


@pytest.fixture
def own(run: Path, tmp_path: Path) -> Path:
    """A copy of the run, to be changed."""
    shutil.copytree(run, tmp_path / "copy")
    return tmp_path / "copy"
