"""The first layer's filters and maps: the right ones, drawn, and at no cost to the model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from PIL import Image
from torch import nn

import models
from tests.runs import DIGITS, Run, train_here
from trainer.data.dataset import ImageSet
from trainer.data.scaling import Scaling
from trainer.run.report.features import draw_features, first_layer, write_features

CPU = torch.device("cpu")


class InPlace(nn.Module):
    """Its first convolution is registered last, and what follows changes its output in place."""

    def __init__(self) -> None:
        super().__init__()
        self.second = nn.Conv2d(5, 4, 3)
        self.norm = nn.BatchNorm2d(5)
        self.first = nn.Conv2d(1, 5, 3)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        hidden = self.norm(F.relu_(self.first(images)))
        return self.second(hidden).amax((2, 3))


def scaling() -> Scaling:
    return Scaling(torch.full((1, 1, 1), 100.0), torch.full((1, 1, 1), 50.0))


def image_set(channels: int = 1, samples: int = 12) -> ImageSet:
    pixels = torch.arange(samples * channels * 64).reshape(samples, channels, 8, 8) % 251
    return ImageSet(pixels.to(torch.uint8), torch.arange(samples) // 2)


def test_the_layer_that_runs_first_and_its_own_outputs() -> None:
    model, inputs = InPlace().train(), torch.randn(2, 1, 8, 8)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    found = first_layer(model, inputs)
    assert found is not None
    assert found.name == "first"
    with torch.no_grad():
        torch.testing.assert_close(found.maps, model.first(inputs))
    assert found.maps.min() < 0
    torch.testing.assert_close(found.weights, model.first.weight.detach())
    assert model.training
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name]), name
    assert not model.first._forward_hooks


@pytest.mark.parametrize("channels", [1, 2, 3])
@pytest.mark.parametrize("filters", [1, 8, 20])
def test_filters_and_maps_are_drawn(tmp_path: Path, channels: int, filters: int) -> None:
    model = nn.Sequential(nn.Conv2d(channels, filters, 3), nn.AdaptiveMaxPool2d(1), nn.Flatten())
    images = image_set(channels if channels != 2 else 1)
    layer = first_layer(model, torch.randn(3, channels, 8, 8))
    assert layer is not None
    figure = draw_features(images.pictures(np.array([0, 2, 4])), layer)
    shown = min(filters, 16)
    rows = -(-shown // 8)
    assert len(figure.axes[0].images) == 3 * rows + 4 * shown
    last = np.asarray(figure.axes[0].images[-1].get_array())
    np.testing.assert_array_equal(last, layer.maps[2, shown - 1].numpy())


def test_the_picture_has_no_background(tmp_path: Path) -> None:
    write_features(tmp_path / "features.png", InPlace(), image_set(), scaling(), CPU)
    with Image.open(tmp_path / "features.png") as picture:
        alpha = np.asarray(picture.convert("RGBA"))[..., 3]
    assert alpha[0, 0] == 0
    assert (alpha == 255).mean() > 0.3


def test_a_model_without_convolutions_has_no_picture(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 6))
    write_features(tmp_path / "features.png", model, image_set(), scaling(), CPU)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", models.names())
def test_every_family_has_a_first_layer(name: str) -> None:
    model = models.create(name, {}, num_classes=3, in_channels=3, image_size=(32, 32))
    found = first_layer(model, torch.zeros(2, 3, 32, 32))
    assert found is not None
    # What airbench trains first sees its 12 whitened patches and their negatives.
    assert found.weights.shape[1] == (24 if name == "airbench" else 3)
    assert len(found.maps) == 2


@pytest.mark.usefixtures("report")
def test_a_picture_that_fails_costs_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("no canvas")

    monkeypatch.setattr("trainer.run.report.features.draw_features", fail)
    short = ["--train.epochs", "1", "--data.train_size", "300"]
    assert train_here(tmp_path / "run", *short, config=DIGITS) == 0
    run = Run(tmp_path / "run", 0)
    assert "features.png could not be written: RuntimeError: no canvas" in caplog.text
    assert not (run.folder / "features.png").exists()
    page = (run.folder / "report.html").read_text(encoding="utf-8")
    assert "Calibration" in page
    assert "first layer" not in page
    assert 0 < run.json("results.json")["test"]["calibration_error"] < 1
    assert run.json("status.json")["state"] == "finished"
