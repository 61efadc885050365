"""Helpers that do whole runs in tests, and read the files of runs."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from tests.conftest import REPOSITORY
from trainer.commands.train import train
from trainer.ranks import exit_codes

DIGITS = REPOSITORY / "tests" / "recipes" / "digits.yaml"
"""the recipe with native kernels, as torch is imported here already"""


@dataclass(frozen=True)
class Run:
    """A run's folder, and how its command ended."""

    folder: Path
    exit_code: int
    output: str = ""
    errors: str = ""

    def json(self, name: str) -> Any:
        return json.loads((self.folder / name).read_text())

    def metrics(self, event: str) -> list[dict[str, Any]]:
        lines = (self.folder / "metrics.jsonl").read_text().splitlines()
        return [record for record in map(json.loads, lines) if record["event"] == event]

    @property
    def digest(self) -> str:
        digest: str = self.json("results.json")["final_weights_sha256"]
        return digest


def words(folder: Path, *more: str, config: Path = DIGITS) -> list[str]:
    """Arguments of train.py for a run in `folder` that takes seconds and needs no network."""
    quiet = ["--tracking.wandb", "disabled", "--threads", "1"]
    return ["--config", str(config), "--output_dir", str(folder), *quiet, *more]


def train_here(folder: Path, *more: str, config: Path = DIGITS) -> int:
    """Do a run in this process, which has everything imported, and return its exit code."""
    with pytest.raises(SystemExit) as end, exit_codes.exit_with_code():
        train(words(folder, *more, config=config))
    assert isinstance(end.value.code, int)
    return end.value.code


def command(
    folder: Path, *more: str, launcher: list[str] | None = None, report: bool = False
) -> list[str]:
    """The command line of a run in its own process, which leaves out the pictures.

    Args:
        report: with train.py itself, for tests of the report or of the start.
    """
    script = REPOSITORY / ("train.py" if report else "tests/train_without_report.py")
    return [*(launcher or [sys.executable]), str(script), *words(folder, *more)]


def train_apart(
    folder: Path,
    *more: str,
    launcher: list[str] | None = None,
    report: bool = False,
    **env: str,
) -> Run:
    """Do a run in its own processes."""
    from tests.distributed.launch import environment

    finished = subprocess.run(
        command(folder, *more, launcher=launcher, report=report),
        cwd=folder.parent,
        env=environment(**env),
        capture_output=True,
        text=True,
        check=False,
    )
    return Run(folder, finished.returncode, finished.stdout, finished.stderr)


def train_forked(folder: Path, processes: int, *more: str, report: bool = False, **env: str) -> Run:
    """Do a run in processes forked from one with everything imported, as if under torchrun."""
    from tests.distributed.launch import run_forked

    start = command(folder, *more)[1:]
    if report:
        start = ["-c", (REPOSITORY / "train.py").read_text(), *words(folder, *more)]
    finished = run_forked(processes, folder.parent, *start, **env)
    return Run(folder, finished.returncode, finished.stdout, finished.stderr)


def check_same(run: Run, undisturbed: Run) -> None:
    """Check that weights and records are the same, without a gap or a repetition."""
    assert run.exit_code == 0, run.errors
    assert run.digest == undisturbed.digest
    receipts = [(one.folder / "receipt.json").read_bytes() for one in (run, undisturbed)]
    assert receipts[0] == receipts[1]
    assert run.metrics("step") == undisturbed.metrics("step")
    changing = {"seconds", "samples_per_second"}
    epochs = [
        [{k: v for k, v in record.items() if k not in changing} for record in one.metrics("epoch")]
        for one in (run, undisturbed)
    ]
    assert epochs[0] == epochs[1]


def sha256_of(path: Path) -> str:
    """The digest of a safetensors file as the documentation defines it, with numpy only."""
    digest = hashlib.sha256()
    tensors = load_file(path)
    for name in sorted(tensors):
        if np.issubdtype(tensors[name].dtype, np.floating):
            digest.update(tensors[name].tobytes("C"))
    return digest.hexdigest()


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}
