"""What the tests of Weights & Biases change of their surroundings."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture
def nobodys_account(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Work without the key, netrc file and settings of the user who runs the tests."""
    for name in [key for key in os.environ if key.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.chdir(tmp_path)
