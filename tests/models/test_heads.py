"""Which layer is the head: of every registered network, of timm's, and of users' own."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import models
from models.heads import find_head
from tests.models.test_families import LIGHT


def head_of(name: str, num_classes: int, side: int = 32) -> tuple[nn.Module, str]:
    network = models.create(
        name,
        LIGHT.get(name, {}),
        num_classes=num_classes,
        in_channels=3,
        image_size=(side, side),
    )
    return network, find_head(network, num_classes)


@pytest.mark.parametrize("name", models.names())
def test_the_head_of_every_registered_network_gives_its_logits(name: str) -> None:
    network, head = head_of(name, 7)
    seen: list[torch.Tensor] = []
    network.get_submodule(head).register_forward_hook(lambda *of: seen.append(of[2]))
    network.eval()
    logits = network(torch.zeros(2, 3, 32, 32))
    assert len(seen) == 1
    assert torch.equal(seen[0].flatten(1), logits)


def test_a_convolution_may_be_the_head() -> None:
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 5, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    )
    assert find_head(net, 5) == "2"


def test_a_layer_with_parametrised_weights_is_found() -> None:
    net = nn.Sequential(nn.Flatten(), nn.utils.parametrizations.weight_norm(nn.Linear(12, 5)))
    assert find_head(net, 5) == "1"


@pytest.mark.parametrize(
    ("net", "parts"),
    [
        (nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5)), ["its last parameter, 1.bias"]),
        (nn.Sequential(nn.Linear(4, 6)), ["its last layer, 0,", "6 outputs", "5 outputs, one"]),
        (nn.Sequential(nn.Conv2d(3, 5, 3)), ["0.bias, is not of a linear layer"]),
        (nn.Sequential(nn.ReLU()), ["its last parameter, of which it has none"]),
        (nn.Linear(4, 5), ["its last parameter, weight"]),
    ],
)
def test_what_has_none_says_what_is_there(net: nn.Module, parts: list[str]) -> None:
    with pytest.raises(ValueError, match="its last") as caught:
        find_head(net, 5)
    for part in parts[1:]:
        assert part in str(caught.value)
