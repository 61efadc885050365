"""Too little memory in a step or in an evaluation is a message that names the key to change."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.runs import train_here
from trainer.base import out_of_memory
from trainer.base.errors import RankError

GREEDY = """
import torch
from torch import nn

class Greedy(nn.Sequential):
    def __init__(self, num_classes, in_training, fitting):
        super().__init__(nn.Flatten(), nn.Linear(64, num_classes))
        self.in_training, self.fitting = in_training, fitting

    def forward(self, images):
        if self.training == self.in_training and len(images) > self.fitting:
            torch.empty(2**60, dtype=torch.uint8)
        return super().forward(images)
"""


@pytest.mark.parametrize(
    ("in_training", "fitting", "key", "what"),
    [
        ("true", 4, "train.microbatches", "a micro-batch of 15 samples"),
        ("false", 4, "train.evaluation_batch_size", "a block of 144 images of an evaluation"),
        ("false", 20, "train.evaluation_batch_size", "a block of 144 images of an evaluation"),
    ],
)
def test_advice_for_a_step_and_for_an_evaluation(
    in_training: str,
    fitting: int,
    key: str,
    what: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The error is the CPU allocator's own; that a trial lacks memory too refuses nothing."""
    plugin = tmp_path / "greedy.py"
    plugin.write_text(GREEDY)
    words = [
        "--model.name",
        f"{plugin}:Greedy",
        "--model.args",
        f'{{"in_training": {in_training}, "fitting": {fitting}}}',
    ]
    assert train_here(tmp_path / "run", *words, "--train.epochs", "1") == 2
    message = capsys.readouterr().err
    assert f"{key}: {what} does not fit into the memory; " in message
    assert "Traceback" not in message
    if in_training == "false":
        fewer = ["--train.evaluation_batch_size", str(fitting)]
        assert train_here(tmp_path / "fewer", *words, "--train.epochs", "1", *fewer) == 0


@pytest.mark.parametrize(
    "error", [MemoryError(), torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")]
)
def test_other_allocators(error: Exception) -> None:
    device = torch.device("cuda")
    with (
        pytest.raises(RankError, match="key: what does not fit into the GPU's memory; less does"),
        out_of_memory.explain("key: what", "less does", device),
    ):
        raise error


def test_any_other_error_stays_what_it_is() -> None:
    with (
        pytest.raises(RuntimeError, match="shapes differ"),
        out_of_memory.explain("key: what", "less does", torch.device("cpu")),
    ):
        raise RuntimeError("shapes differ")


GREEDY_AUGMENTATION = """
import torch
from trainer.api import register_augmentation

@register_augmentation("greedy", numbers=1)
def greedy(images, numbers):
    if len(images) == 60:
        torch.empty(2**60, dtype=torch.uint8)
    return images
"""


def test_advice_for_a_batch(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plugin = tmp_path / "greedy.py"
    plugin.write_text(GREEDY_AUGMENTATION)
    words = ["--data.augment", f"{plugin}:greedy", "--train.epochs", "1"]
    assert train_here(tmp_path / "run", *words) == 2
    message = capsys.readouterr().err
    assert "train.batch_size: a step's batch of 60 images of this process does not fit" in message
    assert "Traceback" not in message
