"""Which parameters have which rate and decay."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from models import create
from trainer.base.errors import UserError
from trainer.config.schema import OptimizerConfig
from trainer.training.parameter_groups import layers_of, parameter_groups


class Wrapped(nn.Module):
    """A network inside another one, with a stage of two blocks and a loose parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Module()
        self.net.scale = nn.Parameter(torch.ones(1))
        self.net.stem = nn.Conv2d(1, 4, 3)
        self.net.norm = nn.BatchNorm2d(4)
        self.net.stage = nn.Sequential(nn.Sequential(nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4)),
                                       nn.Sequential(nn.Conv2d(4, 4, 3)))  # fmt: skip
        self.net.head = nn.Linear(4, 3)


def settings(model: nn.Module, **keys: Any) -> dict[str, tuple[float, float]]:
    """Return rate and decay of each parameter by its name."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    groups = parameter_groups(OptimizerConfig("sgd", **keys), model, 3)
    kinds = [(group.get("lr_factor", 1.0), group["weight_decay"]) for group in groups]
    assert len(set(kinds)) == len(kinds), "equal groups are one"
    return {
        names[id(parameter)]: kind
        for group, kind in zip(groups, kinds, strict=True)
        for parameter in group["params"]
    }


def test_layers_are_the_blocks_and_the_head_is_the_last() -> None:
    assert layers_of(Wrapped(), 3) == {
        "net.scale": 0, "net.stem.weight": 1, "net.stem.bias": 1, "net.norm.weight": 1,
        "net.norm.bias": 1, "net.stage.0.0.weight": 2, "net.stage.0.0.bias": 2,
        "net.stage.0.1.weight": 2, "net.stage.0.1.bias": 2, "net.stage.1.0.weight": 3,
        "net.stage.1.0.bias": 3, "net.head.weight": 4, "net.head.bias": 4,
    }  # fmt: skip


def test_layers_of_a_residual_net_are_its_blocks() -> None:
    net = create("resnet_d", {"widths": [8, 16], "blocks": [1, 2]}, num_classes=3, in_channels=1,
                 image_size=(32, 32))  # fmt: skip
    layers = layers_of(net, 3)
    assert [*dict.fromkeys(layers.values())] == list(range(max(layers.values()) + 1))
    assert len({name.split(".")[1] for name, layer in layers.items() if layer == 3}) == 1


def test_decay_of_the_rate_by_layer_times_the_factor_of_a_group() -> None:
    found = settings(
        Wrapped(), weight_decay=0.1, layer_decay=0.5,
        groups={"*.stage.*": {"lr_factor": 0.5, "weight_decay": 0.2}},
    )  # fmt: skip
    assert found["net.head.weight"] == (1.0, 0.1)
    assert found["net.head.bias"] == (1.0, 0.0)
    assert found["net.stage.1.0.weight"] == (0.25, 0.2)
    assert found["net.stage.0.0.bias"] == (0.125, 0.0)
    assert found["net.stem.weight"] == (0.125, 0.1)
    assert found["net.scale"] == (0.0625, 0.0)


def test_a_backbone_has_a_rate_of_its_own() -> None:
    found = settings(Wrapped(), groups={"backbone": {"lr_factor": 0.2}})
    assert {name for name, kind in found.items() if kind == (1.0, 0.0)} == {
        "net.head.weight", "net.head.bias",
    }  # fmt: skip


def test_groups_as_before_where_nothing_is_asked_for() -> None:
    """A checkpoint counts the parameters in this order."""
    model = Wrapped()
    (only,) = parameter_groups(OptimizerConfig("adam"), model, 3)
    assert [*map(id, only["params"])] == [*map(id, model.parameters())]
    decayed, vectors = parameter_groups(OptimizerConfig("adam", weight_decay=0.1), model, 3)
    assert [one.ndim for one in decayed["params"]] == [4, 4, 4, 2]
    assert all(one.ndim < 2 for one in vectors["params"])
    muon = parameter_groups(OptimizerConfig("muon"), model, 3)
    assert [len(group["params"]) for group in muon] == [3, 1 + len(vectors["params"])]
    assert [group.get("muon", False) for group in muon] == [True, False]


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({"groups": {"net.stam.*": {"lr_factor": 0.1}}}, r"did you mean .*net\.stem\.\*"),
        (
            {"groups": {"*.bias": {"lr_factor": 2.0}, "net.stem.*": {"lr_factor": 0.1}}},
            r"'\*\.bias' and 'net\.stem\.\*' both mean net\.stem\.bias",
        ),
    ],
)
def test_patterns_that_are_wrong(keys: dict[str, Any], expected: str) -> None:
    with pytest.raises(UserError, match=expected):
        settings(Wrapped(), **keys)


def test_without_a_head_there_is_no_order_of_layers() -> None:
    with pytest.raises(UserError, match=r"optimizer\.layer_decay: the network's layers have no"):
        parameter_groups(OptimizerConfig(layer_decay=0.5), nn.Sequential(nn.Linear(4, 9)), 3)
