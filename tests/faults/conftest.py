"""Fixtures for the tests of files from somebody else."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.checkpoints import small_state
from trainer.checkpoint.reading import open_checkpoint
from trainer.checkpoint.writing import Checkpoints
from trainer.config.schema import CheckpointConfig


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
