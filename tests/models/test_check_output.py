"""`models.check_output`: what a network returns is checked, and nothing of it changes."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

import models


class Returning(nn.Module):
    """Returns whatever the function makes of the images."""

    def __init__(self, function: Callable[[torch.Tensor], object]) -> None:
        super().__init__()
        self.function = function

    def forward(self, images: torch.Tensor) -> object:
        return self.function(images)


class Restless(nn.Module):
    """A network that changes its state in every forward pass, evaluation or not."""

    count: torch.Tensor
    sums: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("count", torch.zeros(1))
        self.register_buffer("sums", torch.ones(2))
        self.norm = nn.BatchNorm2d(1)
        self.frozen = nn.BatchNorm2d(1).eval()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.count += 1
        self.sums = self.sums + torch.rand(2)
        logits: torch.Tensor = self.frozen(self.norm(images)).flatten(1)[:, :10]
        return logits


def check(network: nn.Module) -> None:
    models.check_output(network, num_classes=10, in_channels=1, image_size=(28, 20))


def message(function: Callable[[torch.Tensor], object]) -> str:
    with pytest.raises(ValueError) as caught:
        check(Returning(function))
    return str(caught.value)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_right_output(dtype: torch.dtype) -> None:
    check(Returning(lambda images: images.flatten(1)[:, :10].to(dtype)))


@pytest.mark.parametrize("shape", [(2, 5), (2, 10, 1), (1, 10), (10,)])
def test_wrong_shape(shape: tuple[int, ...]) -> None:
    text = message(lambda images: torch.zeros(shape))
    assert f"Returning returns a tensor of shape {shape}" in text
    assert "of shape (2, 10), a logit for each class" in text


def test_wrong_type() -> None:
    assert "type torch.int64" in message(lambda images: torch.zeros(2, 10, dtype=torch.int64))
    assert "returns a tuple for images of shape (2, " in message(lambda images: (images, images))
    assert "returns a NoneType for images of shape (2, " in message(lambda images: None)


def test_failing_forward() -> None:
    text = message(lambda images: images @ torch.zeros(3, 3))
    assert "Returning fails on images of shape (2, 1, 28, 20): RuntimeError: " in text
    assert "test_check_output.py, line " in text


def test_network_without_forward() -> None:
    with pytest.raises(ValueError, match="Module fails on images of shape"):
        check(nn.Module())


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("fails", [False, True])
def test_nothing_changes(training: bool, fails: bool) -> None:
    network = Restless()
    network.training = network.norm.training = training
    flags = [module.training for module in network.modules()]
    buffers = dict(network.named_buffers())
    values = {key: value.clone() for key, value in network.state_dict().items()}
    generator = torch.get_rng_state()
    if fails:
        with pytest.raises(ValueError):
            models.check_output(network, num_classes=11, in_channels=1, image_size=(28, 20))
    else:
        check(network)
    assert [module.training for module in network.modules()] == flags
    assert all(value is buffers[key] for key, value in network.named_buffers())
    assert list(network.state_dict()) == list(values)
    assert all(torch.equal(value, values[key]) for key, value in network.state_dict().items())
    assert torch.equal(torch.get_rng_state(), generator)
    assert all(parameter.grad is None for parameter in network.parameters())


def test_lazy_layers_learn_their_shapes() -> None:
    network = nn.Sequential(
        nn.LazyConv2d(4, 3), nn.LazyBatchNorm2d(), nn.Flatten(), nn.LazyLinear(10)
    )
    check(network)
    assert sum(p.numel() for p in network.parameters()) == (9 * 4 + 4) + 8 + (4 * 26 * 18 + 1) * 10
    assert network.training and network[1].num_batches_tracked == 0


def test_what_only_training_does_is_checked_too() -> None:
    """A network may add a second output in training, as nets with auxiliary heads do."""

    class Auxiliary(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(64, 10)

        def forward(self, images: torch.Tensor) -> torch.Tensor | tuple[torch.Tensor, int]:
            logits: torch.Tensor = self.head(images.flatten(1))
            return (logits, 1) if self.training else logits

    with pytest.raises(ValueError, match="Auxiliary returns in training, a tuple for images"):
        models.check_output(Auxiliary(), num_classes=10, in_channels=1, image_size=(8, 8))
