"""The training images beside a mistake are those that the network takes to be nearest."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from tests.run.report.test_run_report import Page, write_run
from trainer.data.dataset import ImageSet
from trainer.data.scaling import Scaling
from trainer.run.report import neighbours
from trainer.run.report.mistakes import read_worst
from trainer.run.report.run_report import write_report

TRAINING = 100


def image_set(images: torch.Tensor, classes: int = 3) -> ImageSet:
    return ImageSet(images, torch.arange(len(images)) % classes)


def find(model: nn.Module, asked: list[int]) -> neighbours.Neighbours | None:
    """Test image i is training image i at half the brightness."""
    pixels = torch.randint(1, 128, (TRAINING, 1, 4, 4), generator=torch.Generator().manual_seed(0))
    train = image_set((2 * pixels).to(torch.uint8))
    test = image_set(pixels.to(torch.uint8))
    device, scaling = torch.device("cpu"), Scaling(torch.zeros(1, 1, 1), torch.ones(1, 1, 1))
    return neighbours.find(model, 3, train, test, np.array(asked), scaling, device)


def net() -> nn.Module:
    """Its features are the pixels, except in training."""
    return nn.Sequential(nn.Flatten(), nn.Dropout(0.9), nn.Linear(16, 3))


def test_the_nearest_come_first_and_nothing_is_changed() -> None:
    model = net().train()
    before = torch.get_rng_state()
    found = find(model, [99, 4])
    assert found is not None
    assert found.images.shape == (2, neighbours.NEAREST, 4, 4)
    assert found.targets[:, 0].tolist() == [99 % 3, 4 % 3]
    np.testing.assert_allclose(found.cosines[:, 0], 1, atol=1e-6)
    assert (np.diff(found.cosines) <= 0).all()
    assert (found.looked_at, found.training) == (TRAINING, TRAINING)
    assert all(part.training for part in model.modules())
    assert torch.equal(torch.get_rng_state(), before)


def test_in_a_short_time_images_from_all_places_are_looked_at(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(neighbours, "LIMIT_S", -1.0)
    found = find(net(), [0])
    assert found is not None
    assert found.looked_at == neighbours.BLOCK_SAMPLES
    first = np.sort(neighbours._spread(1000)[:50])
    assert np.diff([-1, *first, 1000]).max() < 60
    assert sorted(neighbours._spread(1000)) == list(range(1000))


def test_without_a_head_or_a_mistake_there_are_none() -> None:
    assert find(nn.Sequential(nn.Flatten(), nn.Linear(16, 3), nn.LayerNorm(3)), [0]) is None
    assert find(net(), []) is None


def test_the_page_shows_them_and_says_what_was_looked_at(tmp_path: Path) -> None:
    images = write_run(tmp_path)
    count = len(read_worst(tmp_path)["index"])
    found = neighbours.Neighbours(
        images=np.full((count, 2, 8, 8), 200, dtype=np.uint8),
        targets=np.tile([1, 2], (count, 1)),
        cosines=np.tile(np.array([0.75, 0.5], dtype=np.float32), (count, 1)),
        looked_at=1500,
        training=60000,
    )
    write_report(tmp_path, images.__getitem__, found)
    page = Page(tmp_path / "report.html")
    assert "Trouser 0.75 Shirt 0.50" in page.text
    assert "nearest of 1,500 images, evenly spread over the 60,000 training images" in page.text
    shown = [picture for picture in page.pictures() if picture.size == (8, 8)]
    assert len(shown) == 3 * count
    assert [picture.getpixel((0, 0)) == 200 for picture in shown] == [False, True, True] * count
