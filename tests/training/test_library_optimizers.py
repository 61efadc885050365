"""Optimisers of torch and timm, arguments of our own, and schedule-free ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.runs import Run, check_same, train_here
from tests.training.test_optimizers import small_net
from tests.with_timm import run_with_timm
from trainer.base.errors import UserError
from trainer.config.schema import OptimizerConfig
from trainer.training.optimizers import build

SHORT = ["--train.epochs", "2", "--data.train_size", "300"]


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("sgd", {"momentum": 0.8, "nesterov": False, "dampening": 0.1}),
        ("adam", {"betas": [0.8, 0.95], "eps": 1e-6, "amsgrad": True}),
        ("adamw", {"betas": [0.8, 0.95]}),
        ("rmsprop", {"alpha": 0.9, "centered": True}),
        ("muon", {"momentum": 0.5, "betas": [0.8, 0.9]}),
        ("torch:NAdam", {"momentum_decay": 0.01}),
        ("torch:Adafactor", {}),
    ],
)
def test_arguments_change_the_step(name: str, arguments: dict[str, Any]) -> None:
    """Each is the optimiser's own; what it is called in the groups may differ."""
    ends = []
    for given in ({}, arguments):
        model = small_net()
        optimizer = build(OptimizerConfig(name, lr=0.01, args=given), model, 3)
        for step in range(3):
            torch.manual_seed(step)
            for parameter in model.parameters():
                parameter.grad = torch.randn_like(parameter)
            optimizer.step()
        ends.append(torch.cat([parameter.flatten() for parameter in model.parameters()]))
    assert ends[1].isfinite().all()
    assert torch.equal(*ends) is not bool(arguments)


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({"name": "adamw", "args": {"betas": [2.0, 0.9]}}, "optimizer.args: adamw refuses"),
        ({"name": "torch:Adamm"}, "torch has no optimiser 'Adamm'; did you mean torch:Adam"),
        ({"name": "torch:nadam"}, "did you mean torch:NAdam"),
        ({"name": "torch:LBFGS"}, "optimizer.name: torch:LBFGS fails: "),
        ({"name": "torch:SparseAdam"}, "optimizer.name: torch:SparseAdam fails"),
        ({"name": "torch:NAdam", "args": {"beta": 1}}, "unexpected keyword argument 'beta'"),
        ({"name": "torch:Rprop", "weight_decay": 0.1}, "optimizer.weight_decay: torch:Rprop has"),
    ],
)
def test_what_cannot_be_used_is_said(keys: dict[str, Any], expected: str) -> None:
    with pytest.raises(UserError) as caught:
        build(OptimizerConfig(**keys), small_net(), 3)
    assert expected in str(caught.value)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--optimizer.args", '{"betta": 1}'], "adamw takes no 'betta'; did you mean betas?"),
        (["--optimizer.groups", '{"a.*": {"lr": 1}}'], "lr: is none of lr_factor, weight_decay"),
        (["--optimizer.groups", '{"a.*": {"lr_factor": 0}}'], "must be a positive number"),
        (["--optimizer.groups", '{"a.*": 3}'], "optimizer.groups: a.*: must be lr_factor"),
        (["--optimizer.layer_decay", "1.5"], "optimizer.layer_decay: must be null or between 0"),
        (["--train.unfreeze_epoch", "2"], "null where train.freeze is null"),
        (["--train.freeze", "backbone", "--train.unfreeze_epoch", "1"], "null or at least 2"),
        (["--train.freeze_statistics", "true"], "false where model.weights is null"),
        (["--train.freeze", "bakcbone"], "train.freeze: must be null or backbone or a list of"),
        (["--train.clip_mode", "agc"], "norm where train.clip_norm is null"),
        (["--schedule.name", "restarts"], "schedule.cycle_epochs: must be given where"),
        (["--schedule.plateau_epochs", "2"], "null unless schedule.name is plateau"),
        (["--schedule.warmup_steps", "9", "--schedule.warmup_epochs", "1"], "there is one warm"),
    ],
)
def test_keys_that_do_not_fit(
    words: list[str], expected: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train_here(tmp_path / "run", *words) == 2
    assert expected in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


SCHEDULE_FREE = '''
import torch

class ScheduleFree(torch.optim.Optimizer):
    """Schedule-free SGD (Defazio et al., 2024): the gradient is taken between z and its mean x."""

    def __init__(self, params, lr, beta=0.9):
        super().__init__(params, {"lr": lr, "weight_decay": 0.0, "k": 0, "train_mode": False})
        self.beta = beta

    @torch.no_grad()
    def _move(self, train_mode, weight):
        for group in self.param_groups:
            for parameter in group["params"]:
                if group["train_mode"] != train_mode and "z" in self.state[parameter]:
                    parameter.lerp_(self.state[parameter]["z"], weight)
            group["train_mode"] = train_mode

    def train(self):
        self._move(True, 1 - self.beta)

    def eval(self):
        self._move(False, 1 - 1 / self.beta)

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            assert group["train_mode"], "not in training mode"
            group["k"] += 1
            for parameter in group["params"]:
                if parameter.grad is not None:
                    z = self.state[parameter].setdefault("z", parameter.clone())
                    x = parameter.lerp(z, 1 - 1 / self.beta)
                    z.sub_(parameter.grad, alpha=group["lr"])
                    x.lerp_(z, 1 / group["k"])
                    parameter.copy_(x.lerp(z, 1 - self.beta))
'''


def test_a_schedule_free_optimiser_is_evaluated_with_its_mean_and_goes_on(tmp_path: Path) -> None:
    """Its count is in its groups, and a checkpoint within an epoch is in training mode."""
    plugin = tmp_path / "free.py"
    plugin.write_text(SCHEDULE_FREE)
    more = [*SHORT, "--optimizer.name", f"{plugin}:ScheduleFree", "--optimizer.lr", "0.5",
            "--checkpoint.every_steps", "3", "--checkpoint.keep", "9"]  # fmt: skip
    assert train_here(tmp_path / "whole", *more) == 0
    whole = Run(tmp_path / "whole", 0)
    for step in (3, 5):  # in the first epoch, and at its end
        (saved,) = (tmp_path / "whole" / "checkpoints").glob(f"step-*{step}")
        state = whole.json(f"checkpoints/{saved.name}/state.json")["optimizer"]
        assert state["group0.k"] == step
        assert state.get("group0.train_mode", False) is (step == 3)
        place = tmp_path / f"from-{step}"
        assert train_here(place, *more, "--resume", str(saved)) == 0
        check_same(Run(place, 0), whole)


TIMM = """
import json, sys
from benchmarks.torchvision_operators import define_missing_operators
kept = define_missing_operators()
import pytest, timm, torch
from timm.optim import param_groups_layer_decay
from tests.second_device import accelerator_of, second_device
from tests.training.test_optimizers import small_net
from trainer.base.errors import UserError
from trainer.config.schema import OptimizerConfig, RunConfig
from trainer.network import model_state
from trainer.training.optimizers import build
from trainer.training.parameter_groups import parameter_groups

def waits(name):
    with pytest.MonkeyPatch.context() as patch, second_device(patch) as device:
        accelerator = accelerator_of(RunConfig(), second=True)
        net = model_state.move(small_net(), accelerator.device)
        optimizer = build(OptimizerConfig(f"timm:{name}", lr=0.01), net, 3)
        for _ in range(2):
            device.waits.clear()
            for parameter in net.parameters():
                parameter.grad = torch.ones_like(parameter)
            optimizer.step()
        return bool(device.waits)

tried = ("adafactorbv", "adamp", "adopt", "lamb", "lion", "muon", "nadamw", "novograd", "sgdp")
found = [name for name in tried if waits(name)]
assert found == ["adamp", "novograd", "sgdp"], found  # as docs/optimisers.md says
for name in ("timm:lion", "timm:lamb", "timm:adopt"):
    build(OptimizerConfig(name, weight_decay=0.1), small_net(), 3)
try:
    build(OptimizerConfig("timm:lambb"), small_net(), 3)
except UserError as error:
    assert "did you mean timm:lamb" in str(error), error
net = timm.create_model("resnet18", num_classes=3)
theirs = {id(one): group["lr_scale"] for group in param_groups_layer_decay(net, layer_decay=0.7)
          for one in group["params"]}
ours = {id(one): group.get("lr_factor", 1.0)
        for group in parameter_groups(OptimizerConfig(layer_decay=0.7), net, 3)
        for one in group["params"]}
assert ours == theirs
"""


def test_those_of_timm_and_its_layers(tmp_path: Path) -> None:
    """LAMB counts its steps in its groups, so it is what a checkpoint has to remember there."""
    finished = run_with_timm(tmp_path, "-c", TIMM)
    assert finished.returncode == 0, finished.stderr
