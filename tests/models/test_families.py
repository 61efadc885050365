"""Every registered network: shapes, sizes, parameter counts, gradients, refused arguments."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import nn

import models
from models.airbench import PatchWhitening

# The smallest square image that each network takes, and the arguments that keep the tests fast.
SMALLEST = {
    "airbench": 9,
    "alexnet_small": 4,
    "efficientnet_lite0": 1,
    "lab_cnn": 4,
    "lenet5": 12,
    "preact_resnet": 1,
    "quicknet": 4,
    "resnet_d": 1,
    "vgg_small": 8,
    "wide_resnet": 1,
}
# Of the same code as efficientnet_lite0, with more blocks and wider ones.
LARGER = [f"efficientnet_lite{number}" for number in (1, 2, 3, 4)]
LIGHT: dict[str, dict[str, Any]] = {
    "preact_resnet": {"depth": 8},
    "resnet_d": {"widths": [8, 16], "blocks": [1, 1]},
    "wide_resnet": {"depth": 10, "widen_factor": 1},
}


def build(
    name: str,
    arguments: dict[str, Any] | None = None,
    num_classes: int = 10,
    in_channels: int = 1,
    image_size: tuple[int, int] = (28, 28),
) -> nn.Module:
    return models.create(
        name,
        arguments or {},
        num_classes=num_classes,
        in_channels=in_channels,
        image_size=image_size,
    )


def count(name: str, arguments: dict[str, Any], in_channels: int) -> int:
    network = build(name, arguments, in_channels=in_channels)
    return sum(parameter.numel() for parameter in network.parameters())


def test_every_registered_network_is_tested_here() -> None:
    assert models.names() == sorted([*SMALLEST, *LARGER])


@pytest.mark.parametrize("name", models.names())
def test_arguments_can_be_checked_before_there_are_data(name: str) -> None:
    before = torch.random.get_rng_state()
    models.check(name, LIGHT.get(name, {}))
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize("name", sorted(SMALLEST))
@pytest.mark.parametrize("image_size", [(28, 28), (32, 32), (64, 64), (20, 33), (12, 12)])
@pytest.mark.parametrize("in_channels", [1, 3])
def test_logits_for_any_image(name: str, image_size: tuple[int, int], in_channels: int) -> None:
    network = build(name, LIGHT.get(name), 7, in_channels, image_size)
    images = torch.rand(3, in_channels, *image_size)
    assert network(images).shape == (3, 7)
    models.check_output(network, num_classes=7, in_channels=in_channels, image_size=image_size)


@pytest.mark.parametrize("name", sorted(SMALLEST))
def test_smallest_image(name: str) -> None:
    side = SMALLEST[name]
    network = build(name, LIGHT.get(name), image_size=(side, side))
    models.check_output(network, num_classes=10, in_channels=1, image_size=(side, side))


@pytest.mark.parametrize("name", sorted(name for name, side in SMALLEST.items() if side > 1))
@pytest.mark.parametrize("axis", [0, 1])
def test_smaller_images_are_refused(name: str, axis: int) -> None:
    side = SMALLEST[name]
    height, width = (side - 1, 40) if axis == 0 else (40, side - 1)
    with pytest.raises(ValueError) as caught:
        build(name, image_size=(height, width))
    assert f"{name}: images of {height}x{width} pixels are too small" in str(caught.value)
    assert f"at least {side}x{side}" in str(caught.value)


def test_lab_cnn_parameters() -> None:
    convolutions = (5 * 5 * 1 * 16 + 16) + (5 * 5 * 16 * 32 + 32)
    assert count("lab_cnn", {}, 1) == convolutions + 1568 * 10 + 10 == 28_938


def test_lenet5_parameters() -> None:
    convolutions = (5 * 5 * 1 * 6 + 6) + (5 * 5 * 6 * 16 + 16)
    linear = (400 * 120 + 120) + (120 * 84 + 84) + (84 * 10 + 10)
    assert count("lenet5", {}, 1) == convolutions + linear == 61_706


def test_wide_resnet_parameters() -> None:
    total = 3 * 16 * 9
    before = 16
    for width in (64, 128, 256):
        total += 2 * before + before * width * 9 + 2 * width + width * width * 9 + before * width
        total += 2 * (2 * width + width * width * 9)
        before = width
    total += 2 * 256 + 256 * 10 + 10
    assert count("wide_resnet", {}, 3) == total == 2_748_890


@pytest.mark.parametrize(
    ("depth", "widen_factor", "millions"), [(16, 4, 2.7), (28, 10, 36.5), (40, 4, 8.9)]
)
def test_wide_resnets_are_as_large_as_in_the_paper(
    depth: int, widen_factor: int, millions: float
) -> None:
    parameters = count("wide_resnet", {"depth": depth, "widen_factor": widen_factor}, 3)
    assert parameters / 1e6 == pytest.approx(millions, abs=0.06)


def test_the_nets_of_other_papers_are_as_large_as_there() -> None:
    # Of the paper's 1.97 million, 312 are the fixed whitening filters.
    assert count("airbench", {}, 3) / 1e6 == pytest.approx(1.97, abs=0.005)
    # ResNet-18 with 10 classes, and a stem of two convolutions instead of one.
    widths = {"widths": [64, 128, 256, 512]}
    assert count("resnet_d", widths, 3) / 1e6 == pytest.approx(11.2, abs=0.05)


@pytest.mark.parametrize(("name", "fixed"), [("preact_resnet", 2), ("wide_resnet", 4)])
def test_depth_counts_the_layers(name: str, fixed: int) -> None:
    for blocks in (1, 2, 4):
        network = build(name, {"depth": 6 * blocks + fixed})
        kernels = [m.kernel_size for m in network.modules() if isinstance(m, nn.Conv2d)]
        assert kernels.count((3, 3)) == 1 + 6 * blocks


@pytest.mark.parametrize("name", sorted(SMALLEST))
def test_every_parameter_learns(name: str) -> None:
    torch.manual_seed(0)
    network = build(name, LIGHT.get(name))
    loss = nn.functional.cross_entropy(network(torch.randn(8, 1, 28, 28)), torch.arange(8))
    assert 1.0 < loss.item() < 6.0  # near log(10): the first logits are neither 0 nor huge
    torch.autograd.backward(loss)
    for key, parameter in network.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), key
        assert parameter.grad.abs().sum() > 0, key


@pytest.mark.parametrize("name", sorted(SMALLEST))
def test_first_weights_follow_from_torchs_seed(name: str) -> None:
    weights = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        weights.append(nn.utils.parameters_to_vector(build(name, LIGHT.get(name)).parameters()))
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


@pytest.mark.parametrize("name", sorted(SMALLEST))
def test_the_classifier_is_the_last_matrix(name: str) -> None:
    matrices = [p for p in build(name, num_classes=7).parameters() if p.ndim >= 2]
    assert matrices[-1].shape[0] == 7


@pytest.mark.parametrize(
    "name",
    ["alexnet_small", "efficientnet_lite0", "quicknet", "resnet_d", "vgg_small", "wide_resnet"],
)
def test_dropout_acts_in_training_alone(name: str) -> None:
    def spread(dropout: float, training: bool) -> float:
        torch.manual_seed(0)
        network = build(name, {**LIGHT.get(name, {}), "dropout": dropout}).train(training)
        images = torch.rand(4, 1, 28, 28)
        difference: torch.Tensor = network(images) - network(images)
        return difference.abs().max().item()

    assert spread(0.5, training=True) > 0
    assert spread(0.5, training=False) == 0
    assert spread(0.0, training=True) == 0


@pytest.mark.parametrize("widths", [[8], [8, 16], [4, 8, 8, 16]])
@pytest.mark.parametrize("name", ["quicknet", "vgg_small"])
def test_widths(name: str, widths: list[int]) -> None:
    network = build(name, {"widths": widths})
    models.check_output(network, num_classes=10, in_channels=1, image_size=(28, 28))
    per_block = {"quicknet": 1, "vgg_small": 2}[name]
    found = [m.out_channels for m in network.modules() if isinstance(m, nn.Conv2d)]
    assert found == [width for width in widths for _ in range(per_block)]


@pytest.mark.parametrize(
    ("pooled", "side"), [([], 1), ([1], 2), ((0, 2), 4), ([0, 1, 3], 8), ([3, 2, 1, 0], 16)]
)
def test_quicknet_pools_where_it_is_told(pooled: Sequence[int], side: int) -> None:
    arguments = {"widths": [4, 6, 8, 10], "pooled": pooled}
    network = build("quicknet", arguments, image_size=(side, side))
    models.check_output(network, num_classes=10, in_channels=1, image_size=(side, side))
    assert isinstance(network.features, nn.Sequential)
    position = -1
    found = set()
    for layer in network.features:
        position += isinstance(layer, nn.Conv2d)
        if isinstance(layer, nn.MaxPool2d):
            found.add(position)
    assert found == set(pooled)
    if side > 1:
        with pytest.raises(ValueError, match=f"it needs at least {side}x{side}"):
            build("quicknet", arguments, image_size=(side - 1, 40))


def test_airbench_whitens_smooth_images() -> None:
    """Neighbouring pixels and colours that go together become numbers that do not."""
    torch.manual_seed(0)
    noise = torch.randn(64, 3, 18, 18) + 3 * torch.randn(64, 1, 18, 18)
    images = nn.functional.avg_pool2d(noise, 3, stride=1)

    def largest_correlation(values: torch.Tensor) -> float:
        correlations = torch.corrcoef(values.transpose(0, 1).flatten(1))
        return (correlations - torch.eye(len(correlations))).abs().max().item()

    assert largest_correlation(images.unfold(2, 2, 1).flatten(4).mean(4)) > 0.8
    whitening = PatchWhitening(3)
    whitened = whitening(images)
    positive, negative = whitened.chunk(2, dim=1)
    assert torch.equal(positive, -negative)
    assert largest_correlation(positive) < 0.1
    variances = positive.var((0, 2, 3))
    assert variances.min() > 0.5 and variances.max() < 1.01


@pytest.mark.parametrize("widths", [[8, 8], [8, 16, 16], [8, 16, 16, 32]])
def test_quicknet_pools_after_the_first_and_third_unless_told(widths: list[int]) -> None:
    images = torch.rand(2, 1, 12, 12)
    logits = []
    for arguments in ({}, {"pooled": [index for index in (0, 2) if index < len(widths)]}):
        torch.manual_seed(0)
        logits.append(build("quicknet", {"widths": widths, **arguments})(images))
    assert torch.equal(*logits)


def test_quicknet_pools_before_the_norm_if_told() -> None:
    def parts(**more: Any) -> list[str]:
        network = build("quicknet", {"widths": [4, 6], "pooled": [0], **more})
        models.check_output(network, num_classes=10, in_channels=1, image_size=(28, 28))
        assert isinstance(network.features, nn.Sequential)
        return [type(layer).__name__ for layer in network.features]

    second = ["Conv2d", "BatchNorm2d", "GELU"]
    assert parts() == ["Conv2d", "BatchNorm2d", "GELU", "MaxPool2d", *second]
    assert parts(pool_first=True) == ["Conv2d", "MaxPool2d", "BatchNorm2d", "GELU", *second]


@pytest.mark.parametrize(
    ("activation", "function"),
    [
        ("gelu", nn.functional.gelu),
        ("hardswish", nn.functional.hardswish),
        ("relu", torch.relu),
        ("silu", nn.functional.silu),
    ],
)
def test_quicknet_has_the_activation_that_it_is_told(
    activation: str, function: Callable[[torch.Tensor], torch.Tensor]
) -> None:
    network = build("quicknet", {"widths": [4], "pooled": [], "activation": activation})
    assert isinstance(network.features, nn.Sequential)
    images = torch.randn(3, 1, 9, 9)
    normalised = network.features[:2](images)
    assert torch.equal(network.features(images), function(normalised))


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("alexnet_small", {"dropout": 1.0}, "dropout is 1.0, but must be a number in [0, 1)"),
        ("wide_resnet", {"dropout": -0.1}, "dropout is -0.1,"),
        ("quicknet", {"dropout": "much"}, "dropout is 'much',"),
        ("vgg_small", {"dropout": True}, "dropout is True,"),
        ("quicknet", {"dropout": float("nan")}, "dropout is nan,"),
        ("quicknet", {"widths": []}, "widths is [], but must be a list of whole numbers"),
        ("quicknet", {"widths": [32, 0]}, "widths is [32, 0],"),
        ("quicknet", {"pooled": [0, 5]}, "pooled is [0, 5], but must be a list of different"),
        ("quicknet", {"pooled": [-1]}, "pooled is [-1], but must be"),
        ("quicknet", {"pooled": [0, 0]}, "pooled is [0, 0],"),
        ("quicknet", {"pooled": [True]}, "pooled is [True],"),
        ("quicknet", {"pooled": 2}, "pooled is 2,"),
        ("quicknet", {"activation": "tanh"}, "activation is 'tanh', but must be one of gelu, hard"),
        ("quicknet", {"activation": ["relu"]}, "activation is ['relu'], but must be one of"),
        ("quicknet", {"pool_first": 1}, "pool_first is 1, but must be true or false"),
        ("quicknet", {"pooled": [[0]]}, "pooled is [[0]],"),
        ("quicknet", {"pooled": [0, 1, 2, 3, 4]}, "images of 28x28 pixels are too small: it needs"),
        ("vgg_small", {"widths": [32.5]}, "widths is [32.5],"),
        ("vgg_small", {"widths": 64}, "widths is 64,"),
        ("vgg_small", {"widths": [8] * 5}, "images of 28x28 pixels are too small"),
        ("wide_resnet", {"depth": 17}, "depth is 17, but must be 6n + 4: 10, 16, 22, 28, ..."),
        ("wide_resnet", {"depth": 4}, "depth is 4, but must be 6n + 4"),
        ("preact_resnet", {"depth": 18}, "depth is 18, but must be 6n + 2: 8, 14, 20, 26, ..."),
        ("preact_resnet", {"depth": "20"}, "depth is '20', but must be 6n + 2"),
        ("preact_resnet", {"width": 0}, "width is 0, but must be a whole number of at least 1"),
        ("wide_resnet", {"drop_path": 1.0}, "drop_path is 1.0, but must be a number in [0, 1)"),
        ("preact_resnet", {"drop_path": "0.1"}, "drop_path is '0.1',"),
        ("preact_resnet", {"squeeze_excitation": 16}, "squeeze_excitation is 16, but must be true"),
        ("wide_resnet", {"squeeze_excitation": None}, "squeeze_excitation is None,"),
        ("wide_resnet", {"widen_factor": 1.5}, "widen_factor is 1.5,"),
        ("airbench", {"convolutions": 0}, "convolutions is 0, but must be a whole number of"),
        ("airbench", {"residual": 1}, "residual is 1, but must be true or false"),
        (
            "airbench",
            {"widths": [8] * 5},
            "images of 28x28 pixels are too small: it needs at least",
        ),
        ("resnet_d", {"blocks": [2, 2]}, "blocks is [2, 2], but must be a list of 4 whole numbers"),
        ("resnet_d", {"widths": [8], "blocks": [0]}, "blocks is [0],"),
    ],
)
def test_refused_values(name: str, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError) as caught:
        build(name, arguments)
    assert str(caught.value).startswith(f"{name}: {message}")
