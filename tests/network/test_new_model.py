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


VIEWS = """
from torch import nn

class Views(nn.Module):
    def __init__(self, num_classes, in_channels, image_size):
        super().__init__()
        self.filters, self.linear = nn.Conv2d(in_channels, 4, 3), nn.Linear(144, num_classes)

    def forward(self, images):
        return self.linear(self.filters(images).view(len(images), -1))
"""


def test_the_memory_format_is_chosen_and_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    short = ["--train.epochs", "1", "--data.train_size", "200"]

    def kernels(name: str, *more: str) -> str:
        assert train_here(tmp_path / name, *short, *more) == 0
        lines = capsys.readouterr().out.splitlines()
        return next(line.split(maxsplit=1)[1] for line in lines if line.startswith("kernels"))

    plugin = tmp_path / "views.py"
    plugin.write_text(VIEWS)
    views = ["--model.name", f"{plugin}:Views", "--model.args", "{}"]
    assert kernels("auto") == "channels_last, deterministic"
    assert kernels("plain", "--train.memory_format", "contiguous") == "contiguous, deterministic"
    assert kernels("views", *views) == "contiguous, deterministic"
    wanted = ["--train.memory_format", "channels_last"]
    assert train_here(tmp_path / "none", *short, *views, *wanted) == 2
    message = capsys.readouterr().err
    assert message.startswith("train.memory_format: the model cannot use channels_last")
    assert "view size is not compatible" in message


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("lenet6", "{}", "no model is called 'lenet6'; did you mean lenet5?"),
        ("preact_resnet", '{"dept": 20}', "has no argument 'dept'; did you mean depth?"),
        ("preact_resnet", '{"depth": 21}', "depth is 21, but must be 6n + 2"),
        ("nowhere.py:Net", "{}", "there is no file"),
    ],
    ids=["name", "argument", "value", "file"],
)
def test_a_mistake_is_found_before_the_data_are_read(
    name: str, arguments: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = ["--data.name", "folder", "--data.root", str(tmp_path / "none")]
    words = ["--model.name", name, "--model.args", arguments]
    assert train_here(tmp_path / "run", *data, *words) == 2
    errors = capsys.readouterr().err
    assert message in errors and "data.root" not in errors
