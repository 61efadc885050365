"""Activation checkpointing: the bits of a step without it, with less memory."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch import nn

import models
from tests.golden.cases import FAMILIES
from tests.runs import Run, train_here
from trainer.base.errors import UserError
from trainer.base.tensor_files import weights_sha256
from trainer.config.schema import TrainConfig
from trainer.data.sampling import microbatch_sizes
from trainer.network import blocks, model_state
from trainer.ranks import exit_codes
from trainer.run import first_pass
from trainer.training.forward_pass import ForwardPass
from trainer.training.step import TrainStep

SAMPLES = 6


def build(family: str, **arguments: Any) -> nn.Module:
    torch.manual_seed(0)
    return models.create(family, arguments, num_classes=3, in_channels=3, image_size=(32, 32))


def do_steps(network: nn.Module, **train: Any) -> str:
    """Do two steps, and return the digest of the weights, the buffers and the last gradients."""
    accelerator = Accelerator(cpu=True, mixed_precision=train.pop("mixed_precision", "no"))
    network = accelerator.prepare_model(network, device_placement=False, evaluation_mode=True)
    optimizer = accelerator.prepare_optimizer(torch.optim.SGD(network.parameters(), 0.1, 0.9))
    config = TrainConfig(microbatches=2, **train)
    step = TrainStep(accelerator, network, optimizer, config, seed=0)
    network.train()
    draw = torch.Generator().manual_seed(1)
    for number in (1, 2):
        images = torch.randn(SAMPLES, 3, 32, 32, generator=draw)
        targets = torch.randint(0, 3, (SAMPLES,), generator=draw)
        step(number, images, targets, microbatch_sizes(SAMPLES, 2))
    gradients = {f"grad.{n}": p.grad for n, p in network.named_parameters() if p.grad is not None}
    return weights_sha256(model_state.tensors(network) | gradients)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_gives_the_bits_of_a_step_without_it(family: str) -> None:
    """Batch norm counts a batch once, dropout and stochastic depth draw the same numbers."""
    arguments, has_dropout = FAMILIES[family]
    if has_dropout:
        arguments = arguments | {"dropout": 0.3}
    digests = [
        do_steps(build(family, **arguments), activation_checkpointing=on) for on in (False, True)
    ]
    assert digests[0] == digests[1]


@pytest.fixture
def fresh_accelerator() -> Iterator[None]:
    """Let a test choose another precision than those before it."""
    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.mark.parametrize("train", [{"mixed_precision": "bf16"}, {"sam_rho": 0.05}])
def test_in_bf16_and_with_two_passes(train: dict[str, Any], fresh_accelerator: None) -> None:
    digests = [
        do_steps(build("wide_resnet", depth=10, widen_factor=1, dropout=0.3), **train,
                 activation_checkpointing=on)
        for on in (False, True)
    ]  # fmt: skip
    assert digests[0] == digests[1]


class Odd(nn.Module):
    """A block with all that a second computation could change."""

    def __init__(self) -> None:
        super().__init__()
        self.filters = nn.ModuleList(nn.Conv2d(3, 3, 1) for _ in range(2))
        self.norm = nn.InstanceNorm2d(3, track_running_stats=True)
        self.register_buffer("scale", torch.ones(()))
        self.register_buffer("last", None)
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))

    def forward(self, images: torch.Tensor, *, factor: float = 1.0) -> torch.Tensor:
        self.scale.mul_(1.5)
        self.count += 1
        self.last = images.detach().mean()
        drawn = factor * random.random() + np.random.rand()  # noqa: NPY002
        hidden = self.filters[0](images) * self.scale * drawn
        return self.filters[1](self.norm(hidden).relu()).add(images)


def odd() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(Odd(), Odd(), nn.Dropout(0.3), nn.Flatten(), nn.Linear(3 * 32 * 32, 3))


def test_buffers_of_every_kind_and_other_generators() -> None:
    assert len(blocks.find_blocks(odd())[0].pieces) == 3
    assert do_steps(odd()) == do_steps(odd(), activation_checkpointing=True)


def kept_bytes(network: nn.Module, *, on: bool) -> int:
    """Return how much a forward pass keeps for the backward pass, without the parameters."""
    own = {parameter.data_ptr() for parameter in network.parameters()}
    kept: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.data_ptr() not in own:
            kept[tensor.data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    forward_pass = ForwardPass(
        Accelerator(cpu=True), network, TrainConfig(activation_checkpointing=on)
    )
    hooks = torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor)
    with hooks, forward_pass.prepared():
        logits = network(torch.randn(4, 3, 32, 32))
    logits.sum().backward()
    return sum(kept.values())


@pytest.mark.parametrize(
    ("family", "arguments"),
    [("preact_resnet", {"depth": 32}), ("vgg_small", {"widths": [32] * 4}), ("resnet_d", {})],
)
def test_a_deep_network_keeps_less(family: str, arguments: dict[str, Any]) -> None:
    without, with_it = (kept_bytes(build(family, **arguments), on=on) for on in (False, True))
    assert with_it < 0.6 * without


def test_the_network_stays_as_it_was_built() -> None:
    network = build("preact_resnet", depth=8)
    kept_bytes(network, on=True)
    assert not any("forward" in vars(module) for module in network.modules())


class Overwriting(nn.Module):
    """Changes what it is given, which is all that is kept of it."""

    def __init__(self) -> None:
        super().__init__()
        self.filters = nn.ModuleList(nn.Conv2d(3, 3, 1) for _ in range(2))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.filters[1](self.filters[0](images.mul_(2.0)))


class Counting(Overwriting):
    """Counts its passes where nobody looks."""

    passes = 0

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.passes += 1
        return self.filters[1](self.filters[0](images) * self.passes)


class Exhausted(Overwriting):
    """Has enough for two passes."""

    def __init__(self) -> None:
        super().__init__()
        self.factors = [1.0, 1.0]

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.filters[1](self.filters[0](images) * self.factors.pop())


@pytest.mark.parametrize(
    ("block", "message"),
    [
        (Overwriting, "fail: one of the variables"),
        (Counting, "another gradient of"),
        (Exhausted, "fail: pop from empty list"),
    ],
)
def test_blocks_that_another_pass_changes_are_refused(block: type[nn.Module], message: str) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 3, 1), block(), nn.Flatten(), nn.Linear(3 * 4, 3))
    accelerator = Accelerator(cpu=True)
    optimizer = accelerator.prepare_optimizer(torch.optim.SGD(network.parameters(), 0.1))
    config = TrainConfig(microbatches=1, activation_checkpointing=True)
    step = TrainStep(accelerator, network, optimizer, config, seed=0)
    with pytest.raises(UserError, match=f"activation_checkpointing: must be false .*{message}"):
        first_pass.check_blocks(step, torch.randn(2, 3, 2, 2))


def test_what_cannot_be_computed_again_is_refused() -> None:
    network = torch.jit.script(nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 3)))
    with pytest.raises(UserError, match=r"activation_checkpointing: must be false.*TorchScript"):
        do_steps(network, activation_checkpointing=True)


def test_a_run_may_go_on_with_it(tmp_path: Path) -> None:
    """Also where the network's blocks are frozen at first."""
    net = ["--model.name", "preact_resnet", "--model.args", '{"depth": 8, "width": 4}']
    more = [*net, "--train.freeze", "backbone", "--train.unfreeze_epoch", "2"]
    more += ["--train.epochs", "2", "--train.batch_size", "650", "--train.microbatches", "2"]
    assert train_here(tmp_path / "without", *more) == 0
    stopped = [*more, "--train.max_seconds", "0.001"]
    assert train_here(tmp_path / "with", *stopped) == exit_codes.STOPPED_ON_REQUEST
    key = ["--train.activation_checkpointing", "true"]
    assert train_here(tmp_path / "with", *more, *key) == 0
    assert Run(tmp_path / "with", 0).digest == Run(tmp_path / "without", 0).digest
