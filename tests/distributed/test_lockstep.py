"""A run is a function of its configuration: the same bits on 1, 2 and 4 processes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.distributed.launch import run_worker

COMMON = {"train.epochs": 1, "train.batch_size": 128, "data.train_size": 500, "optimizer.lr": 0.01}
"""450 training samples: the last step has 66, in uneven pieces."""

# Every model family, optimiser and part that could break the promise, each at least once.
RUNS: list[dict[str, Any]] = [
    {"model.name": "lab_cnn", "optimizer.name": "adam", "schedule.name": "cosine"},
    {
        "model.name": "quicknet",
        "model.args": {"widths": [8, 16, 16], "dropout": 0.3},
        "optimizer.name": "muon",
        "data.augment": "flip_shift_cutout",
        "train.label_smoothing": 0.1,
        "train.clip_norm": 1.0,
    },
    {
        "model.name": "vgg_small",
        "model.args": {"widths": [8, 16]},
        "optimizer.name": "sgd",
        "data.augment": "shift",
        "train.microbatches": 8,
        "schedule.name": "linear",
    },
    {"model.name": "preact_resnet", "optimizer.name": "rmsprop", "optimizer.lr": 1e-3},
    {
        "model.name": "wide_resnet",
        "model.args": {"depth": 10, "widen_factor": 1, "dropout": 0.2},
        "optimizer.name": "adamw",
        "data.augment": "flip_shift",
    },
    {"model.name": "lab_cnn", "train.batch_size": 224, "train.microbatches": 224},
    # Pieces of 33 and 32 samples, then of 17 and 16: its conditional layer is used by some alone.
    {
        "model.name": f"{Path(__file__).with_name('odd_model.py')}:OddModel",
        "train.batch_size": 129,
        "optimizer.name": "adamw",
        "optimizer.weight_decay": 0.1,
    },
    {
        "model.name": "alexnet_small",
        "optimizer.name": "sgd",
        "optimizer.lr": 1e-3,
        "data.augment": "flip_shift_cutout",
    },
]


def train(processes: int, folder: Path, runs: list[dict[str, Any]]) -> Any:
    runs = [COMMON | run for run in runs]
    output = folder / f"out-{processes}"
    return run_worker(processes, output, name="train", runs=runs, folder=str(folder))


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return train(1, tmp_path_factory.mktemp("alone"), RUNS)


@pytest.mark.parametrize("processes", [2, 4])
def test_the_process_count_changes_nothing(processes: int, alone: Any, tmp_path: Path) -> None:
    """Weights, buffers, the optimiser's state, and the losses of the predictions."""
    together = train(processes, tmp_path, RUNS)
    for run, one, several in zip(RUNS, alone, together, strict=True):
        assert several == one, run


def test_a_change_of_any_part_changes_the_bits(alone: Any, tmp_path: Path) -> None:
    """Else the comparison above could not fail: seed, micro-batches and parts all enter."""
    changed = [RUNS[1] | change for change in (
        {"seed": 1}, {"train.microbatches": 2}, {"train.clip_norm": 0.5}, {"data.augment": "shift"}
    )]  # fmt: skip
    digests = {outcome["weights"] for outcome in train(1, tmp_path, changed)}
    assert len(digests | {alone[1]["weights"]}) == len(changed) + 1


def test_batch_norm_counts_steps_and_not_forward_passes(alone: Any) -> None:
    assert set(alone[1]["batches"]) == {4}


def test_a_draw_that_depends_on_the_rank_is_found(tmp_path: Path) -> None:
    """The comparison sees it: the plug-in draws from a generator of its own, seeded by the rank."""
    plugin = tmp_path / "ranked.py"
    plugin.write_text("""
import os
import torch
from models.lab import LabCNN

class Ranked(LabCNN):
    def forward(self, images):
        generator = torch.Generator().manual_seed(int(os.environ.get("RANK", "0")))
        return super().forward(images + 0.01 * torch.randn(images.shape, generator=generator))
""")
    run = {"model.name": f"{plugin}:Ranked"}
    (one,), (two,) = (train(processes, tmp_path, [run]) for processes in (1, 2))
    assert one["weights"] != two["weights"]


def test_micro_batches_that_are_no_power_of_two(tmp_path: Path) -> None:
    """On 2 processes a block of 3 is no subtree; on 3 processes there is no butterfly."""
    run = RUNS[1] | {"train.microbatches": 6}
    outcomes = [train(processes, tmp_path, [run]) for processes in (1, 2, 3, 6)]
    assert outcomes[1:] == outcomes[:1] * 3


def test_the_fast_reduction_is_equal_to_rounding(alone: Any, tmp_path: Path) -> None:
    """DDP sums over the ranks in an order of its own, also where the last step is short."""
    runs = [RUNS[0] | {"train.reduction": "fast"}, RUNS[2] | {"train.reduction": "fast"}]
    runs.append(RUNS[6] | {"train.reduction": "fast"})
    fast = train(2, tmp_path, runs)
    for outcome, exact in zip(fast, (alone[0], alone[2], alone[6]), strict=True):
        assert outcome["losses"] == pytest.approx(exact["losses"], rel=1e-2, abs=1e-3)
        assert outcome["batches"] == exact["batches"]


def test_the_fast_reduction_where_a_rank_has_no_sample(tmp_path: Path) -> None:
    """The second step of 61 samples has one: the other rank's model does no backward pass."""
    run = RUNS[2] | {"data.train_size": 61, "data.validation_size": 0, "train.batch_size": 60}
    (exact,) = train(1, tmp_path, [run])
    (fast,) = train(2, tmp_path, [run | {"train.reduction": "fast"}])
    assert fast["losses"] == pytest.approx(exact["losses"], rel=1e-2, abs=1e-3)
    assert fast["batches"] == exact["batches"]
