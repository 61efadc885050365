"""Frozen parameters: what they are, and what a run with them does and leaves out."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from tests.distributed.launch import run_worker
from tests.runs import Run, check_same, train_forked, train_here
from trainer.base.errors import UserError
from trainer.config.schema import TrainConfig
from trainer.network.freezing import Freezing

NET = ["--model.name", "quicknet", "--model.args", '{"widths": [8, 16, 16]}']
FROZEN = ["--train.freeze", "backbone", "--train.unfreeze_epoch", "3", "--train.epochs", "3"]

TWO_PHASES = [
    *(*NET, "--train.freeze", "backbone", "--train.unfreeze_epoch", "2", "--train.epochs", "2"),
    *("--train.batch_size", "650", "--train.microbatches", "2", "--train.ema_decay", "0.9"),
    *("--optimizer.groups", '{"backbone": {"lr_factor": 0.5}}'),
    *("--checkpoint.every_steps", "1", "--checkpoint.keep", "9"),
]


def net() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 4, 3),
        nn.BatchNorm2d(4),
        nn.Conv2d(4, 4, 1),
        nn.BatchNorm2d(4, affine=False),
        nn.Flatten(),
        nn.Linear(4, 3),
    )


def trained(module: nn.Module) -> list[str]:
    return [name for name, one in module.named_parameters() if one.requires_grad]


@pytest.mark.parametrize(
    ("freeze", "left", "norms"),
    [
        ("backbone", ["5.weight", "5.bias"], ["1", "3"]),
        (["0.*", "1.*"], ["2.weight", "2.bias", "5.weight", "5.bias"], ["1"]),
        (["[0-3].*"], ["5.weight", "5.bias"], ["1", "3"]),
        (["*.weight"], ["0.bias", "1.bias", "2.bias", "5.bias"], []),
        (None, [f"{n}.{p}" for n in "0125" for p in ("weight", "bias")], []),
    ],
)
def test_patterns_say_what_is_frozen_and_which_norms_keep_their_statistics(
    freeze: str | list[str] | None, left: list[str], norms: list[str]
) -> None:
    module = net()
    freezing = Freezing(module, TrainConfig(freeze=freeze), 3)  # type: ignore[arg-type]
    freezing.set_epoch(1)
    freezing.set_training_mode()
    assert trained(module) == left
    in_evaluation = [name for name, part in module.named_modules() if name and not part.training]
    assert in_evaluation == norms


def test_statistics_stay_frozen_when_parameters_thaw() -> None:
    module = net()
    config = TrainConfig(freeze=["0.*", "1.*"], unfreeze_epoch=2, freeze_statistics=True)
    freezing = Freezing(module, config, 3)
    for epoch, parameters in ((1, 4), (2, 8)):
        freezing.set_epoch(epoch)
        freezing.set_training_mode()
        assert len(trained(module)) == parameters
        assert freezing.frozen_norms() == [module[1], module[3]]
        assert not module[1].training and not module[3].training and module[0].training


@pytest.mark.parametrize(
    ("freeze", "expected"),
    [
        (
            ["2.wieght"],
            r"train.freeze: '2.wieght' is the name of no parameter; did you mean 2.weig",
        ),
        (["stages.*"], r"there are 0\.\*, 1\.\*"),
        (["*"], r"train.freeze: \['\*'\] freezes every parameter"),
    ],
)
def test_what_cannot_be_frozen_is_said(freeze: list[str], expected: str) -> None:
    with pytest.raises(UserError, match=expected):
        Freezing(net(), TrainConfig(freeze=freeze), 3)


def test_a_network_without_a_known_head_has_no_backbone() -> None:
    with pytest.raises(UserError, match=r"train.freeze: no backbone can be told from a head"):
        Freezing(net(), TrainConfig(freeze="backbone"), 7)


def test_what_the_network_has_frozen_itself_stays_so() -> None:
    module = net()
    module[0].weight.requires_grad_(False)
    freezing = Freezing(module, TrainConfig(freeze=["0.*"], unfreeze_epoch=3), 3)
    freezing.set_epoch(3)
    assert "0.weight" not in trained(module)
    assert "0.bias" in trained(module)


def head_and_rest(folder: Path, step: int) -> tuple[dict[str, torch.Tensor], set[str]]:
    """The model in a checkpoint, and the indices of parameters with an optimiser's state."""
    checkpoint = next((folder / "checkpoints").glob(f"step-*{step}"))
    tensors = load_file(checkpoint / "model.safetensors")
    state = load_file(checkpoint / "optimizer.safetensors")
    return tensors, {name.partition(".")[0] for name in state}


def test_frozen_parts_keep_every_bit_and_have_no_state_until_they_are_trained(
    tmp_path: Path,
) -> None:
    """Also under an average, whose batch-norm statistics are computed again."""
    more = [*NET, *FROZEN, "--checkpoint.keep", "9", "--train.average_epochs", "2"]
    more += ["--data.train_size", "300"]
    assert train_here(tmp_path / "run", *more) == 0
    steps = [record["step"] for record in Run(tmp_path / "run", 0).metrics("step")]
    ends = [steps[-1] // 3 * epoch for epoch in (1, 2, 3)]
    (first, held), (second, _), (third, all_of_them) = (
        head_and_rest(tmp_path / "run", step) for step in ends
    )
    head = {"classifier.weight", "classifier.bias"}
    assert {name for name in first if not torch.equal(first[name], second[name])} == head
    assert {name for name in first if torch.equal(second[name], third[name])} == set()
    assert len(held) == len(head)
    assert len(all_of_them) > len(held)


@pytest.fixture(scope="module")
def two_phases(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Of two steps an epoch, with a checkpoint of each: the first two have a frozen backbone."""
    folder = tmp_path_factory.mktemp("phases") / "run"
    assert train_here(folder, *TWO_PHASES) == 0
    return Run(folder, 0)


@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize("step", [2, 3])
def test_a_run_that_ends_at_the_unfreezing_goes_on_as_if_undisturbed(
    step: int, processes: int, two_phases: Run, tmp_path: Path
) -> None:
    """After the last frozen step and after the first of all, also on more processes.

    What would know the epoch wrongly after a resume: the parameters, the modes of the norms, what
    the sum has, the optimiser, the average.
    """
    start = two_phases.folder / "checkpoints" / f"step-{step:08}"
    more = (*TWO_PHASES, "--resume", str(start))
    if processes > 1:
        check_same(train_forked(tmp_path / "run", processes, *more), two_phases)
    else:
        assert train_here(tmp_path / "run", *more) == 0
        check_same(Run(tmp_path / "run", 0), two_phases)


def test_a_run_from_weights_keeps_their_statistics_and_trains_the_rest(
    two_phases: Run, tmp_path: Path
) -> None:
    more = [*NET, "--model.weights", str(two_phases.folder), "--train.freeze_statistics", "true"]
    more += ["--train.freeze", "backbone", "--train.epochs", "1", "--data.train_size", "200"]
    assert train_here(tmp_path / "whole", *more, "--train.freeze", "null") == 0
    assert train_here(tmp_path / "head", *more, "--train.unfreeze_epoch", "2") == 0
    before, whole, head = (
        load_file(folder / "model.safetensors")
        for folder in (two_phases.folder, tmp_path / "whole", tmp_path / "head")
    )
    same = {name for name in before if torch.equal(before[name], whole[name])}
    assert {name for name in before if "running" in name} <= same
    assert not {name for name in same if name.endswith((".weight", ".bias"))}
    changed = {name for name in before if not torch.equal(before[name], head[name])}
    assert changed == {"classifier.weight", "classifier.bias"}


def test_the_fast_reduction_sums_what_is_trained_and_nothing_else(tmp_path: Path) -> None:
    """DDP is wrapped again when parameters thaw."""
    run = {"data.name": "digits", "model.name": "quicknet", "model.args": {"widths": [8, 16]},
           "train.epochs": 2, "train.batch_size": 128, "data.train_size": 500,
           "train.freeze": "backbone", "train.unfreeze_epoch": 2}  # fmt: skip
    (exact,), (fast,) = (
        run_worker(
            2, tmp_path / kind, name="train", folder=str(tmp_path / f"{kind}-runs"),
            runs=[run | {"train.reduction": kind}],
        )
        for kind in ("exact", "fast")
    )  # fmt: skip
    assert fast["losses"] == pytest.approx(exact["losses"], rel=1e-3, abs=1e-4)
    assert fast["batches"] == exact["batches"] == [4, 4, 4][: len(fast["batches"])]
