"""A run is a function of its configuration: the same bits on 1, 2 and 4 processes."""

from __future__ import annotations

import json
from itertools import combinations, product
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import REPOSITORY
from tests.distributed.launch import run_worker
from tests.distributed.matrix import FAMILIES, OPTIMIZERS, PARTS, matrix, pairs, runs_of
from tests.with_timm import run_with_timm

COMMON = {"train.epochs": 1, "train.batch_size": 128, "data.train_size": 500, "optimizer.lr": 0.01}
"""450 training samples: the last step has 66, in uneven pieces."""

QUICKNET = {
    "model.name": "quicknet",
    "model.args": {"widths": [8, 16, 16], "dropout": 0.3},
    "optimizer.name": "muon",
    "data.augment": "flip_shift_cutout",
    "train.label_smoothing": 0.1,
    "train.clip_norm": 1.0,
}
VGG = {
    "model.name": "vgg_small",
    "model.args": {"widths": [8, 16]},
    "optimizer.name": "sgd",
    "data.augment": "shift",
    "train.microbatches": 8,
    "schedule.name": "linear",
}
# Pieces of 33 and 32 samples, then of 17 and 16: its conditional layer is used by some pieces only.
ODD_MODEL = {
    "model.name": f"{Path(__file__).with_name('odd_model.py')}:OddModel",
    "train.batch_size": 129,
    "optimizer.name": "adamw",
    "optimizer.weight_decay": 0.1,
}
LIST_OF_TRANSFORMS = [
    {"random_resized_crop": {"area": [0.5, 1.0]}},
    "alternating_flip",
    {"rotate": {"degrees": 20}},
    f"{REPOSITORY / 'examples' / 'own_augmentation.py'}:light",
    {"rand_augment": {"operations": 3}},
    "aug_mix",
    {"erase": {"noise": "pixel"}},
]
RUNS: list[dict[str, Any]] = [
    QUICKNET,
    VGG,
    ODD_MODEL,
    {"model.name": "lab_cnn", "train.batch_size": 224, "train.microbatches": 224},
    QUICKNET
    | {"train.precision": "bf16", "train.ema_decay": 0.99, "data.augment": LIST_OF_TRANSFORMS},
    QUICKNET | {"train.average_epochs": 2, "train.epochs": 2, "data.train_size": 1400},
    # 158 blocks in whose last turn some processes have none.
    QUICKNET
    | {
        "train.average_epochs": 2,
        "train.epochs": 2,
        "train.evaluation_batch_size": 8,
        "data.train_size": 1400,
    },
    # Frozen in the first epoch: its batch norms too, and the trained parameters are others.
    QUICKNET
    | {
        "train.freeze": "backbone",
        "train.unfreeze_epoch": 2,
        "train.epochs": 2,
        "train.ema_decay": 0.9,
        "optimizer.layer_decay": 0.7,
        "optimizer.groups": {"backbone": {"lr_factor": 0.5, "weight_decay": 0.1}},
    },
    # As configs/finetune.yaml has it, and its first layers frozen.
    {
        "model.name": "efficientnet_lite0",
        "data.train_size": 300,
        "optimizer.name": "adamw",
        "optimizer.groups": {"backbone": {"lr_factor": 0.25}},
        "train.precision": "bf16",
        "train.ema_decay": 0.9,
        "train.freeze": ["conv_stem.*", "bn1.*", "blocks.0.*"],
        "train.freeze_statistics": True,
    },
    QUICKNET
    | {
        "train.sam_rho": 0.05,
        "train.clip_norm": 0.01,
        "train.clip_mode": "agc",
        "optimizer.name": "torch:RAdam",
        "schedule.name": "restarts",
        "schedule.cycle_epochs": 0.5,
    },
    # Four steps: three of mixup and one of cutmix.
    QUICKNET | {"data.augment": "crop_rotate_erase", "data.cutmix": 1.0, "data.mixup": 0.2},
]

EARLY = [
    run
    for run in RUNS
    if run in (QUICKNET, VGG, ODD_MODEL) or run.keys() & {"train.sam_rho", "train.freeze"}
]
"""those whose gradients also leave during the backward pass, on four processes"""

WITH_TIMM = """
import sys
from benchmarks.torchvision_operators import define_missing_operators
from trainer.commands.train import train
from trainer.run import final_report
kept = define_missing_operators()
final_report.write_report = lambda *_: None
folder, *words = sys.argv[1:]
for count in ("4", "1"):
    train([*words, "--processes", count, "--output_dir", f"{folder}/{count}"])
"""

# 180 training samples in steps of 64, 64 and 52.
SMALL = {
    "data.train_size": 200,
    "data.test_size": 100,
    "train.batch_size": 64,
    "optimizer.lr": 1e-3,
}


def train(processes: int, folder: Path, runs: list[dict[str, Any]], **more: Any) -> Any:
    runs = [COMMON | run for run in runs]
    output = folder / f"out-{processes}"
    return run_worker(processes, output, name="train", runs=runs, folder=str(folder), **more)


@pytest.fixture(scope="module")
def single(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return train(1, tmp_path_factory.mktemp("single"), RUNS)


@pytest.mark.parametrize("processes", [2, 4])
def test_the_process_count_changes_nothing(processes: int, single: Any, tmp_path: Path) -> None:
    """Weights, buffers, the optimiser's state, and the losses of the predictions."""
    runs = RUNS if processes == 2 else [run for run in RUNS if run not in EARLY]
    several = train(processes, tmp_path, runs)
    for run, other in zip(runs, several, strict=True):
        assert other == single[RUNS.index(run)], run


def test_gradients_that_leave_during_the_backward_pass_change_nothing(
    single: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As those of large networks do: without some gradients, frozen, in two passes of a step.

    Torch compares the calls of all ranks: all make the same collectives, of the same shapes.
    """
    monkeypatch.setenv("TORCH_DISTRIBUTED_DEBUG", "DETAIL")
    # Several buckets for a net of some thousand parameters, and for one of some million.
    sizes = [2**20 if run["model.name"] == "efficientnet_lite0" else 2**13 for run in EARLY]
    several = train(4, tmp_path, EARLY, bucket_bytes=sizes)
    for run, other in zip(EARLY, several, strict=True):
        assert other == single[RUNS.index(run)], run


def test_a_net_of_timm_has_the_same_bits_on_any_number_of_processes(tmp_path: Path) -> None:
    words = {
        "model.name": "timm:test_resnet", "optimizer.name": "adamw", "optimizer.lr": "1e-3",
        "train.freeze": "backbone", "train.unfreeze_epoch": "2", "train.epochs": "2",
        "model.args": "{}", "train.kernels": "native", "tracking.wandb": "disabled",
        "data.train_size": "260", "data.test_size": "50",
    }  # fmt: skip
    recipe = str(REPOSITORY / "configs" / "digits.yaml")
    keys = [word for key, value in words.items() for word in (f"--{key}", value)]
    done = run_with_timm(tmp_path, "-c", WITH_TIMM, str(tmp_path), "--config", recipe, *keys)
    assert done.returncode == 0, done.stderr
    one, four = (
        json.loads((tmp_path / count / "results.json").read_text()) for count in ("1", "4")
    )
    assert (one["train"]["processes"], four["train"]["processes"]) == (1, 4)
    assert one["final_weights_sha256"] == four["final_weights_sha256"]


def test_the_matrix_holds_every_pair_of_parts() -> None:
    values = {"model.name": list(FAMILIES), "optimizer.name": OPTIMIZERS, **PARTS}
    possible = {
        tuple(sorted([(one, first), (other, second)]))
        for one, other in combinations(values, 2)
        for first, second in product(values[one], values[other])
    }
    without = {name for name, (_, has_dropout) in FAMILIES.items() if not has_dropout}
    impossible = {(("dropout", 0.3), ("model.name", name)) for name in without}
    covered = set().union(*(pairs(combination) for combination in matrix()))
    assert covered == possible - impossible


def test_every_family_with_every_optimiser_and_part(
    tmp_path: Path,
) -> None:
    """On four processes, which have one or two micro-batches each, as on one."""
    runs = [SMALL | one for one in runs_of(matrix(), tmp_path)]
    single, several = (train(processes, tmp_path, runs) for processes in (1, 4))
    for run, one, other in zip(runs, single, several, strict=True):
        assert other == one, run
    assert len({outcome["weights"] for outcome in single}) == len(runs)


def test_a_change_of_any_part_changes_the_bits(single: Any, tmp_path: Path) -> None:
    """Otherwise the comparison above could not fail: seed, micro-batches and parts all matter."""
    changed = [QUICKNET | change for change in (
        {"seed": 1}, {"train.microbatches": 2}, {"train.clip_norm": 0.5}, {"data.augment": "shift"}
    )]  # fmt: skip
    digests = {outcome["weights"] for outcome in train(1, tmp_path, changed)}
    assert len(digests | {single[0]["weights"]}) == len(changed) + 1


def test_batch_norm_counts_steps_and_not_forward_passes(single: Any) -> None:
    assert set(single[0]["batches"]) == {4}


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


def test_micro_batches_that_are_not_a_power_of_two(tmp_path: Path) -> None:
    """On 2 processes a block of 3 is not a subtree; on 3 processes a butterfly is impossible."""
    run = QUICKNET | {"train.microbatches": 6}
    outcomes = [train(processes, tmp_path, [run]) for processes in (1, 2, 3)]
    assert outcomes[1:] == outcomes[:1] * 2


def test_eight_processes(single: Any, tmp_path: Path) -> None:
    assert train(8, tmp_path, [VGG]) == [single[RUNS.index(VGG)]]


def test_the_fast_reduction_is_equal_to_rounding(single: Any, tmp_path: Path) -> None:
    """DDP sums over the ranks in an order of its own, also where the last step is short."""
    runs = [run | {"train.reduction": "fast"} for run in RUNS[:3]]
    fast = train(2, tmp_path, runs)
    for outcome, exact in zip(fast, single[:3], strict=True):
        assert outcome["losses"] == pytest.approx(exact["losses"], rel=1e-2, abs=1e-3)
        assert outcome["batches"] == exact["batches"]


def test_the_fast_reduction_where_a_rank_has_no_sample(tmp_path: Path) -> None:
    """The second step of 61 samples has one: the other rank's model does no backward pass."""
    run = VGG | {"data.train_size": 61, "data.validation_size": 0, "train.batch_size": 60}
    (exact,) = train(1, tmp_path, [run])
    (fast,) = train(2, tmp_path, [run | {"train.reduction": "fast"}])
    assert fast["losses"] == pytest.approx(exact["losses"], rel=1e-2, abs=1e-3)
    assert fast["batches"] == exact["batches"]
