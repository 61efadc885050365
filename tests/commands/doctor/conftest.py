"""Run the doctor as a command in this process."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests.commands.command import Capture, run_command
from tests.runs import train_here

VARIABLES = (
    *("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"),
    *("SLURM_STEP_NUM_TASKS", "ACCELERATE_MIXED_PRECISION", "LOCKSTEP_DATA", "WANDB_MODE"),
    *("WANDB_API_KEY",),
)

SHORT = ["--train.epochs", "1", "--data.train_size", "300"]


@pytest.fixture(autouse=True)
def plain_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Hide launchers, GPUs, data and keys of this machine."""
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))


@pytest.fixture(autouse=True)
def process_lives(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail where the command would end this process, and with it all tests, as if they passed."""

    def fail(code: int) -> None:
        pytest.fail(f"the doctor has given up on a call, and would end the process with {code}")

    monkeypatch.setattr(os, "_exit", fail)


class Doctor:
    """The command in this process."""

    def __init__(self, capsys: Capture) -> None:
        self.capsys = capsys
        self.code: int | str | None = None
        self.errors = ""

    def __call__(self, *words: str) -> dict[str, list[dict[str, str]]]:
        """Run it; return the findings by name."""
        self.code, output, self.errors = run_command(self.capsys, "doctor", "--json", *words)
        found = json.loads(output)
        assert found["works"] == (self.code == 0)
        by_name: dict[str, list[dict[str, str]]] = {}
        for finding in found["findings"]:
            by_name.setdefault(finding["name"], []).append(finding)
        return by_name

    def fails(self, name: str, message: str, *words: str) -> None:
        """Check that it ends with 2 for one problem, of this name and with this message."""
        found = self(*words)
        problems = [one for group in found.values() for one in group if one["state"] == "problem"]
        assert [one["name"] for one in problems] == [name]
        assert message in problems[0]["text"]
        assert self.code == 2
        assert self.errors.endswith(f"a run would fail here: {name}\n")


@pytest.fixture
def doctor(capsys: Capture) -> Doctor:
    return Doctor(capsys)


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    assert train_here(folder, *SHORT) == 0
    return folder
