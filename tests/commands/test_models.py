"""`python -m trainer models`: the networks and their layers, with the arithmetic of their sizes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import models
from tests.commands.command import Capture, arguments_id, run_command
from tests.conftest import REPOSITORY
from trainer.commands.models.layers import Layer, record_layers

PLUGIN = """
import torch
from torch import nn
from torch.nn import functional as F


class Odd(nn.Module):
    def __init__(self, num_classes, in_channels):
        super().__init__()
        self.wide = nn.Conv2d(in_channels, 4, (3, 5), (2, 1), (1, 0), (2, 1))
        self.grouped = nn.Conv2d(4, 8, 3, groups=2, padding="same", bias=False)
        self.up = nn.ConvTranspose2d(8, 8, 2, stride=2)
        self.only_in_training = nn.Parameter(torch.zeros(3))
        self.head = nn.Linear(8, num_classes)

    def forward(self, images):
        features = F.max_pool2d(self.wide(images), 3, stride=2, ceil_mode=True)
        features = torch.cat([features.relu(), features], 1)[:, :4]
        features = self.up(self.grouped(features))
        return self.head(features.mean((2, 3)))
"""


def show(capsys: Capture, *words: str | Path) -> Any:
    """Return what the command prints as JSON."""
    code, output, errors = run_command(capsys, "models", *words, "--json")
    assert code == 0, errors
    return json.loads(output)


def layers_of(network: nn.Module, side: int = 28) -> list[Layer]:
    return record_layers(network, 1, (side, side)).layers


def test_the_list_has_every_family(capsys: Capture) -> None:
    found = {row["name"]: row for row in show(capsys)["models"]}
    assert list(found) == models.names()
    assert found["lab_cnn"]["parameters"] == 28_938
    assert found["lab_cnn"]["multiply_adds"] == 784 * 25 * 16 + 196 * 400 * 32 + 1568 * 10


def test_a_family_that_needs_larger_images_says_why(capsys: Capture) -> None:
    found = {row["name"]: row for row in show(capsys, "--image_size", "8", "8")["models"]}
    assert found["lenet5"]["parameters"] is None
    assert "at least 12x12" in found["lenet5"]["error"]
    assert found["quicknet"]["parameters"] == 278_890
    text = run_command(capsys, "models", "--image_size", "8", "8")[1]
    assert "at least 12x12" in text
    assert all(f"\n{name}" in text for name in models.names())


def test_the_arithmetic_of_the_labs_net(capsys: Capture) -> None:
    code, output, _ = run_command(capsys, "models", "lab_cnn")
    assert code == 0
    assert "size (28 + 2*2 - 5) / 1 + 1 = 28; parameters (5*5*1 + 1) * 16 = 416" in output
    assert "size (28 - 2) / 2 + 1 = 14" in output
    assert "values 32*7*7 = 1,568" in output
    rows = [line.split() for line in output.splitlines()]
    assert ["conv1", "convolution", *"16 x 28 x 28".split()] == rows[3][:7]
    found = show(capsys, "lab_cnn")
    assert [layer["operation"] for layer in found["layers"]] == [
        "convolution", "relu", "max pooling", "convolution", "relu", "max pooling",
        "flatten", "linear",
    ]  # fmt: skip
    assert [layer["receptive_field"] for layer in found["layers"]][:6] == [
        [5, 5], [5, 5], [6, 6], [14, 14], [14, 14], [16, 16],
    ]  # fmt: skip
    assert found["layers"][-1]["receptive_field"] == "all"
    assert found["flops"] == 2 * found["multiply_adds"]


@pytest.mark.parametrize("name", models.names())
def test_the_layers_add_up_to_the_whole(name: str) -> None:
    network = models.create(name, {}, num_classes=7, in_channels=1, image_size=(28, 28))
    found = record_layers(network, 1, (28, 28))
    total = sum(parameter.numel() for parameter in network.parameters())
    assert sum(layer.parameters for layer in found.layers) == total == found.parameters
    assert sum(layer.multiply_adds for layer in found.layers) == found.multiply_adds
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(torch.zeros(1, 1, 28, 28))
    assert counter.get_total_flops() == 2 * found.multiply_adds
    assert found.layers[-1].output_size == (7,)


@pytest.mark.parametrize("arguments", [("vgg_small", {}), ("preact_resnet", {"depth": 8})])
def test_receptive_fields_are_those_of_the_gradients(arguments: tuple[str, Any]) -> None:
    """With positive weights every pixel that a value has seen gets a gradient."""
    name, more = arguments
    network = models.create(name, more, num_classes=10, in_channels=1, image_size=(96, 96)).eval()
    for parameter in network.parameters():
        nn.init.uniform_(parameter, 0.5, 1.0)
    part = network.features if name == "vgg_small" else nn.Sequential(network.stem, network.blocks)
    found = record_layers(network, 1, (96, 96)).layers
    maps = [layer for layer in found if len(layer.output_size) == 3]
    middle = maps[-1].output_size[1] // 2
    reached = torch.zeros(96, 96, dtype=torch.bool)
    torch.manual_seed(0)
    for _ in range(30):  # as other pixels win the poolings of other images
        image = torch.rand(1, 1, 96, 96, requires_grad=True)
        part(image)[0, :, middle, middle].sum().backward()
        assert image.grad is not None
        reached |= image.grad[0, 0] != 0
    rows, columns = reached.any(1).nonzero(), reached.any(0).nonzero()
    spans = [int(places.max() - places.min()) + 1 for places in (rows, columns)]
    assert maps[-1].receptive_field == tuple(spans)


def test_a_user_defined_network(tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "odd.py").write_text(PLUGIN)
    name = f"{tmp_path}/odd.py:Odd"
    found = show(capsys, name, "--image_size", "20", "24", "--channels", "3", "--num_classes", "4")
    by_name = {layer["name"]: layer for layer in found["layers"] if layer["name"]}
    wide = by_name["wide"]
    assert wide["output_size"] == [4, 9, 20]
    assert wide["arithmetic"] == [
        "height floor((20 + 2*1 - (2*(3 - 1) + 1)) / 2) + 1 = 9",
        "width (24 - 5) / 1 + 1 = 20",
        "parameters (3*5*3 + 1) * 4 = 184",
    ]
    assert wide["receptive_field"] == [5, 5]
    pooling = found["layers"][1]
    assert pooling["arithmetic"] == [
        "height (9 - 3) / 2 + 1 = 4",
        "width ceil((20 - 3) / 2) + 1 = 10",
    ]
    assert by_name["grouped"]["arithmetic"][-1] == "parameters 3*3*2 * 8 = 144"
    assert by_name["up"]["operation"] == "transposed convolution"
    assert by_name["up"]["receptive_field"] is None
    assert by_name["head"]["receptive_field"] == "all"
    assert found["other_parameters"] == 3
    assert (
        "3 of the parameters are not used by any operation"
        in run_command(capsys, "models", name)[1]
    )


def test_a_window_that_would_begin_outside_is_dropped() -> None:
    (layer,) = layers_of(nn.MaxPool2d(2, stride=3, ceil_mode=True), 6)
    assert layer.output_size == (1, 2, 2)
    (layer,) = layers_of(nn.MaxPool2d(1, stride=3, ceil_mode=True), 5)
    assert layer.output_size == (1, 2, 2)
    assert layer.arithmetic == [
        "size ceil((5 - 1) / 3) + 1 - 1, as the last would begin outside = 2"
    ]


def test_a_layer_that_is_used_twice_and_the_image_itself() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.shared = nn.Conv2d(1, 1, 3, padding=1)

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return (self.shared(self.shared(images)) + images).amax((2, 3))

    first, second, add, _ = layers_of(Twice())
    assert (first.parameters, second.parameters) == (10, 0)
    assert first.name == second.name == "shared"
    assert add.receptive_field == (5, 5)


def test_images_of_a_configuration(capsys: Capture) -> None:
    digits = REPOSITORY / "configs" / "digits.yaml"
    found = show(capsys, "--config", digits)
    assert (found["name"], found["args"]) == ("quicknet", {"widths": [16, 32, 32]})
    assert (found["channels"], found["image_size"], found["num_classes"]) == (1, [8, 8], 10)
    other = show(capsys, "lab_cnn", "--config", digits, "--num_classes", "3")
    assert (other["name"], other["args"], other["num_classes"]) == ("lab_cnn", {}, 3)
    own = show(capsys, "--config", digits, "--model.args", '{"widths": [4]}')
    assert own["args"] == {"widths": [4]}
    assert show(capsys, "vgg_small", "--model.args", '{"widths": [4]}')["parameters"] < 10_000


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["lab_cmm"], "model.name, model.args: no model is called 'lab_cmm'; did you mean lab_cnn"),
        (["lab_cnn", "--image_size", "2", "2"], "images of 2x2 pixels are too small"),
        (["lab_cnn", "--model.args", '{"width": 3}'], "lab_cnn has no argument 'width'"),
        (["lab_cnn", "lenet5"], "lenet5"),
        (["lab_cnn", "--channels", "0"], "'0' is not a whole number from 1"),
        (["lab_cnn", "--widths", "3"], "--widths"),
        (["nowhere.py:Net"], "there is no file"),
        (["--config", "nowhere.yaml"], "nowhere.yaml"),
        (["--data.name", "mnist", "--data.root", "nowhere"], "nowhere"),
    ],
    ids=arguments_id,
)  # fmt: skip
def test_a_mistake_is_named(words: list[str], expected: str, capsys: Capture) -> None:
    code, output, errors = run_command(capsys, "models", *words)
    assert (code, output) == (2, "")
    assert expected in errors
