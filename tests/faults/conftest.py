"""Fixtures for the tests of files from somebody else."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests.checkpoints import small_state
from tests.runs import contents, train_here
from trainer.checkpoint.reading import open_checkpoint
from trainer.checkpoint.writing import Checkpoints
from trainer.config.schema import CheckpointConfig

SHORT = ["--train.epochs", "2", "--data.train_size", "300"]


@pytest.fixture
def sound(tmp_path: Path) -> Path:
    """A sound checkpoint."""
    tensors = {"weight": torch.ones(3, 2), "bias": torch.ones(3)}
    files = {"model": tensors, "optimizer": {"0.mean": torch.ones(3, 2)}}
    checkpoints = Checkpoints(tmp_path / "run" / "checkpoints", CheckpointConfig())
    checkpoints.save(1, files, small_state())
    checkpoints.wait(needed=True)
    sound = checkpoints.folder / "step-00000001"
    open_checkpoint(sound)
    return sound


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained") / "run"
    assert train_here(folder, *SHORT) == 0
    return folder


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    """A copy of a run with both epochs done and no results yet."""
    shutil.copytree(trained, tmp_path / "run")
    for name in ("status.json", "results.json"):
        (tmp_path / "run" / name).unlink()
    return tmp_path / "run"


@pytest.fixture
def refused(run: Path, capfd: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Start the run again, which must end in one message and leave its checkpoints as they are."""

    def check(*more: str) -> str:
        before = contents(run / "checkpoints")
        capfd.readouterr()
        assert train_here(run, *SHORT, *more) == 2
        message = capfd.readouterr().err
        assert "Traceback" not in message
        assert contents(run / "checkpoints") == before
        return message

    return check
