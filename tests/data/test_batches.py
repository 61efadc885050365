"""Batches that are cut out of pictures: the same bits however they come about."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.data.stored.known import open_pictures, write_photographs
from trainer.base.errors import RankError
from trainer.config.schema import DataConfig, RunConfig, TrainConfig
from trainer.data.batches import Batches
from trainer.data.dataset import Dataset, ImageSet
from trainer.data.scaling import Scaling
from trainer.ranks import processes

COUNT = 12
CROPS = [{"random_resized_crop": {"area": [0.35, 1.0]}}, "flip"]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_photographs(tmp_path / "own", COUNT)
    return tmp_path / "own"


def batches_of(root: Path, replicas: tuple[int, int] = (1, 0), **keys: Any) -> Batches:
    keys = {"name": "folder", "augment": CROPS, **keys}
    pictures = {key: keys[key] for key in ("cache", "store_size") if key in keys}
    images = ImageSet(open_pictures(root, **pictures), torch.arange(COUNT) % 3)
    scaling = Scaling(torch.full((1, 1, 1), 100.0), torch.full((1, 1, 1), 50.0))
    dataset = Dataset(
        "folder", ("a", "b", "c"), images, images, images, scaling, "fingerprint", "source"
    )
    config = RunConfig(
        data=DataConfig(root=str(root), **keys), train=TrainConfig(batch_size=5, microbatches=2)
    )
    return Batches(dataset, config, torch.device("cpu"), *replicas)


def images_of(batches: Batches, epoch: int = 1) -> list[torch.Tensor]:
    return [
        tensor for batch in batches.iter_epoch(epoch, 0) for tensor in (batch.images, batch.targets)
    ]


def are_equal(ours: list[torch.Tensor], theirs: list[torch.Tensor]) -> bool:
    return len(ours) == len(theirs) and all(map(torch.equal, ours, theirs))


def test_neither_prefetch_nor_threads_nor_cache_changes_a_bit(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = images_of(batches_of(root, prefetch=0, cache="none"))
    assert [tuple(images.shape) for images in expected[::2]] == [
        (5, 3, 24, 32),
        (5, 3, 24, 32),
        (2, 3, 24, 32),
    ]
    assert are_equal(images_of(batches_of(root, prefetch=7, cache="memory")), expected)
    monkeypatch.setattr(processes, "decoding_threads", lambda: 5)
    for _ in range(2):
        assert are_equal(images_of(batches_of(root, prefetch=1, cache="disk")), expected)
    assert not are_equal(images_of(batches_of(root), 2), expected)


def test_two_ranks_divide_the_batches_of_one(root: Path) -> None:
    both = zip(*(images_of(batches_of(root, (2, rank), mixup=0.4)) for rank in (0, 1)), strict=True)
    assert are_equal([torch.cat(pair) for pair in both], images_of(batches_of(root, mixup=0.4)))


def test_an_epoch_begun_in_its_middle_goes_on_as_if_it_had_not_stopped(root: Path) -> None:
    batches = batches_of(root, cutmix=1.0)
    expected = [batch.images for batch in batches.iter_epoch(3, 0)]
    assert are_equal([batch.images for batch in batches.iter_epoch(3, 1)], expected[1:])


def test_the_size_follows_its_schedule(root: Path) -> None:
    batches = batches_of(root, image_size_schedule=[[1, 16], [3, 20, 28]])
    sizes = [tuple(images_of(batches, epoch)[0].shape[2:]) for epoch in (1, 2, 3, 9)]
    assert sizes == [(16, 16), (16, 16), (20, 28), (20, 28)]
    assert batches.data.validation.fetch(torch.tensor([0]))[0].shape[2:] == (24, 32)


def test_whole_pictures_are_made_fit_where_nothing_is_cut(root: Path) -> None:
    batches = batches_of(root, augment="none", store_size=30)
    batch = next(batches.iter_epoch(1, 0))
    samples, _ = batches.sampler.global_batch(0)
    pixels, targets = batches.data.train.fetch(samples)
    assert torch.equal(batch.images, batches.data.scaling.apply(pixels))
    assert torch.equal(batch.targets, targets)


def test_a_broken_picture_ends_the_epoch_with_its_name_and_no_thread_is_left(root: Path) -> None:
    before = set(threading.enumerate())
    batches = batches_of(root, cache="none")
    (root / "07.jpg").write_bytes(b"no picture")
    with pytest.raises(RankError, match=r"07\.jpg: was changed"):
        images_of(batches)
    assert set(threading.enumerate()) == before
