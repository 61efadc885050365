"""Batches that do not fit are divided into more micro-batches where nobody has said how many."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from tests.runs import Run, train_apart, train_forked, train_here
from trainer.ranks import memory

GREEDY = """
import os
import torch
from torch import nn

class Greedy(nn.Sequential):
    '''Has memory for a few samples in training, on one rank or on all.'''

    def __init__(self, num_classes, fitting, rank=None):
        super().__init__(
            nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Dropout(0.2),
            nn.Linear(144, num_classes),
        )
        self.fitting, self.rank = fitting, rank

    def forward(self, images):
        is_short = self.rank is None or str(self.rank) == os.environ.get("RANK")
        if self.training and len(images) > self.fitting and is_short:
            torch.empty(2**60, dtype=torch.uint8)
        return super().forward(images)
"""

MEASURES_LATE = """
import time
from pathlib import Path
from trainer.ranks import memory

class Greedy(Greedy):
    '''Tries no step, of more than a few samples, before rank 1 has measured what is free.'''

    def forward(self, images):
        assert len(images) < 20 or not self.training or MEASURED.exists(), "rank 1 had no chance"
        return super().forward(images)

def measure():
    if os.environ["RANK"] == "1" and not MEASURED.exists():
        time.sleep(1.0)
        MEASURED.touch()
    return free_bytes()

MEASURED = Path(__file__).with_name("measured")
if memory.free_bytes.__module__ == memory.__name__:
    free_bytes, memory.free_bytes = memory.free_bytes, measure
"""

SHORT = ["--data.train_size", "300", "--train.epochs", "2", "--train.ema_decay", "0.9"]


@pytest.fixture
def greedy(tmp_path: Path) -> Path:
    plugin = tmp_path / "greedy.py"
    plugin.write_text(GREEDY)
    return plugin


def words(plugin: Path, microbatches: int | None, fitting: int, **arguments: Any) -> list[str]:
    args = ", ".join(f'"{k}": {v}' for k, v in {"fitting": fitting, **arguments}.items())
    return [
        *SHORT, "--model.name", f"{plugin}:Greedy", "--model.args", f"{{{args}}}",
        "--train.microbatches", "null" if microbatches is None else str(microbatches),
    ]  # fmt: skip


def pinned(folder: Path) -> int:
    return int(yaml.safe_load((folder / "config.yaml").read_text())["train"]["microbatches"])


def test_a_batch_that_fits_at_once_is_the_run_that_it_would_have_been(
    greedy: Path, tmp_path: Path
) -> None:
    """The trial has left nothing behind: weights, buffers, optimiser, generators or order."""
    for count in (None, 1):
        assert train_here(tmp_path / f"by {count}", *words(greedy, count, 60)) == 0
    assert pinned(tmp_path / "by None") == 1
    assert Run(tmp_path / "by None", 0).digest == Run(tmp_path / "by 1", 0).digest


def test_a_batch_that_does_not_fit_is_divided_and_stays_so(
    greedy: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    own, given, again = (tmp_path / name for name in ("own", "given", "again"))
    asked = words(greedy, None, 20)
    assert train_here(own, *asked) == 0
    said = "train.microbatches: null is 4 in this run, as a step with 2 does not fit"
    assert caplog.text.count(said) == 1
    assert pinned(own) == 4
    assert train_here(given, *words(greedy, 4, 20)) == 0
    assert Run(own, 0).digest == Run(given, 0).digest
    assert train_here(again, config=own / "config.yaml") == 0
    assert Run(again, 0).digest == Run(own, 0).digest
    assert train_here(own, *asked) == 0  # the same command finds its run


def test_both_ranks_divide_where_one_has_too_little(greedy: Path, tmp_path: Path) -> None:
    greedy.write_text(GREEDY + MEASURES_LATE)
    asked = words(greedy, None, 10, rank='"1"')
    two = train_forked(tmp_path / "two", 2, *asked)
    assert two.exit_code == 0, two.errors
    assert pinned(two.folder) == 8
    greedy.write_text(GREEDY)
    assert train_here(tmp_path / "one", config=two.folder / "config.yaml") == 0
    assert Run(tmp_path / "one", 0).digest == two.digest


def test_what_would_be_killed_is_not_tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Linux grants memory that a container does not have, and kills what uses it."""
    monkeypatch.setattr(memory, "free_bytes", lambda: 5_000_000)
    more = ["--train.batch_size", "1000", "--train.microbatches", "null", "--train.epochs", "1"]
    assert train_here(tmp_path / "run", *more) == 0
    assert pinned(tmp_path / "run") == 8


@pytest.mark.skipif(sys.platform != "linux", reason="limits a process's address space")
def test_a_process_that_gets_no_more_memory(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    generator = np.random.default_rng(0)
    for part, count in (("train", 4100), ("test", 20)):
        images = generator.integers(0, 256, (count, 64, 64, 3), dtype=np.uint8)
        np.save(data / f"x_{part}_features.npy", images)
        np.save(data / f"x_{part}_targets.npy", np.arange(count) % 2)
    run = train_apart(
        tmp_path / "run", "--data.name", "npy", "--data.root", str(data), "--data.augment", "none",
        "--data.validation_size", "0", "--model.name", "lenet5", "--model.args", "{}",
        "--train.batch_size", "4096", "--train.microbatches", "null", "--train.epochs", "1",
        launcher=["prlimit", f"--as={1_800_000 * 1024}", sys.executable],
    )  # fmt: skip
    assert run.exit_code == 0, run.errors
    assert pinned(run.folder) > 1
    assert "does not fit into the memory" in run.errors
