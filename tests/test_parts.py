"""What is found out about a network before the training."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.runs import train_here

NORMED = """
from torch import nn

class Normed(nn.Sequential):
    def __init__(self, num_classes, in_channels, image_size):
        super().__init__(nn.Flatten(), nn.Linear(64, 8), nn.BatchNorm1d(8), nn.Linear(8, 10))
"""


def test_batch_norm_needs_two_images(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """62 images in steps of 60 leave a last step of two images, and micro-batches of one."""
    plugin = tmp_path / "normed.py"
    plugin.write_text(NORMED)
    words = ["--model.name", f"{plugin}:Normed", "--model.args", "{}", "--train.epochs", "1"]
    words += ["--data.validation_size", "0", "--data.train_size"]
    assert train_here(tmp_path / "run", *words, "62") == 2
    message = capsys.readouterr().err
    assert message.startswith("train.batch_size, train.microbatches: 60 and 4 leave micro-batches")
    assert "Expected more than 1 value per channel" in message
    assert train_here(tmp_path / "run", *words, "68") == 0
