"""Load a data set: division, checks, fingerprint."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.data.idx_files import idx_bytes, write_idx_folder
from trainer.base.errors import UserError
from trainer.config.schema import DataConfig
from trainer.data.loading import load
from trainer.data.sources import idx
from trainer.data.sources.reading import prepare


@pytest.fixture
def config(tmp_path: Path) -> DataConfig:
    write_idx_folder(tmp_path / "own")
    return DataConfig(name="idx", root=str(tmp_path / "own"), validation_size=8)


def overwrite(config: DataConfig, name: str, values: np.ndarray) -> None:
    assert config.root is not None
    (Path(config.root) / name).write_bytes(idx_bytes(values))


@pytest.mark.parametrize("packed", [False, True])
def test_user_idx_files(tmp_path: Path, packed: bool) -> None:
    arrays = write_idx_folder(tmp_path / "own", packed=packed)
    config = DataConfig(name="idx", root=str(tmp_path / "own"), validation_size=0)
    prepare(config)
    data = load(config, 0)
    assert data.class_names == ("0", "1", "2", "3")
    assert data.train.images.dtype == torch.uint8
    assert data.train.targets.dtype == torch.int64
    assert data.train.images.is_contiguous()
    assert np.array_equal(data.train.images[:, 0].numpy(), arrays["train-images-idx3-ubyte"])
    assert np.array_equal(data.test.targets.numpy(), arrays["t10k-labels-idx1-ubyte"])
    assert len(data.validation) == 0
    assert str(tmp_path / "own") in data.source


def test_a_batch_is_fetched_in_the_order_asked_for(config: DataConfig) -> None:
    train = load(config, 0).train
    images, targets = train.fetch(torch.tensor([5, 0, 5]))
    assert torch.equal(images[0], train.images[5])
    assert torch.equal(images[1], train.images[0])
    assert torch.equal(targets, train.targets[[5, 0, 5]])


def test_a_data_set_moves_as_a_whole(config: DataConfig) -> None:
    moved = load(config, 0).to("meta")
    for images in (moved.train, moved.validation, moved.test):
        assert images.images.device.type == images.targets.device.type == "meta"
    assert moved.scaling.mean.device.type == "meta"


def test_validation_is_taken_out_of_the_first_training_images(config: DataConfig) -> None:
    everything = load(replace(config, validation_size=0), 0)
    data = load(replace(config, train_size=20, test_size=7, validation="first"), 0)
    assert torch.equal(data.validation.images, everything.train.images[:8])
    assert torch.equal(data.train.images, everything.train.images[8:20])
    assert torch.equal(data.test.images, everything.test.images[:7])


def test_the_scaling_is_fitted_on_the_training_split_only(config: DataConfig) -> None:
    assert config.root is not None
    config = replace(config, validation="first")
    before = load(config, 0)
    path = Path(config.root) / "train-images-idx3-ubyte"
    images = idx.read(path, 3)
    images[:8] = 255  # the validation images
    overwrite(config, path.name, images)
    overwrite(config, "t10k-images-idx3-ubyte", np.full((20, 5, 6), 255, dtype=np.uint8))
    after = load(config, 0)
    assert torch.equal(before.scaling.mean, after.scaling.mean)
    assert torch.equal(before.scaling.deviation, after.scaling.deviation)
    assert before.scaling.mean.item() == pytest.approx(before.train.images.double().mean().item())


def test_the_fingerprint_is_that_of_the_content(config: DataConfig, tmp_path: Path) -> None:
    write_idx_folder(tmp_path / "copy", packed=True)
    reference = load(config, 0).fingerprint
    assert len(reference) == 64
    assert load(replace(config, root=str(tmp_path / "copy")), 0).fingerprint == reference
    assert load(config, 1).fingerprint != reference
    assert load(replace(config, test_size=19), 0).fingerprint != reference
    labels = np.arange(20) % 4
    labels[-1] = 0
    overwrite(config, "t10k-labels-idx1-ubyte", labels)
    assert load(config, 0).fingerprint != reference


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("train-labels-idx1-ubyte", np.arange(39) % 4,
         "train-images-idx3-ubyte has 40 images, but .*train-labels-idx1-ubyte has 39 labels"),
        ("t10k-images-idx3-ubyte", np.zeros((19, 5, 6)),
         "t10k-images-idx3-ubyte has 19 images, but .*t10k-labels-idx1-ubyte has 20 labels"),
        ("t10k-labels-idx1-ubyte", np.array([0, 1, 2, 4] * 5),
         "t10k-labels-idx1-ubyte: label 4 at position 3; with 4 classes .* between 0 and 3"),
        ("train-labels-idx1-ubyte", np.full(40, 0), "no label is above 0; .* at least 2"),
        ("train-labels-idx1-ubyte", np.array([0, 200] * 20),
         "label 200 at position 1 would mean 201 classes, more than the 40 training images"),
        ("t10k-images-idx3-ubyte", np.zeros((20, 6, 6)),
         "has images of 5 x 6 pixels and 1 channel, but .*of 6 x 6 pixels"),
        ("train-images-idx3-ubyte", np.zeros((40, 0, 6)), "has no pixels"),
    ],
)  # fmt: skip
def test_files_that_do_not_match_are_named(
    config: DataConfig, name: str, values: np.ndarray, message: str
) -> None:
    overwrite(config, name, values)
    with pytest.raises(UserError, match=message):
        load(config, 0)


def test_empty_files_are_refused(config: DataConfig) -> None:
    overwrite(config, "t10k-images-idx3-ubyte", np.zeros((0, 5, 6)))
    overwrite(config, "t10k-labels-idx1-ubyte", np.zeros(0))
    with pytest.raises(UserError, match=r"t10k-images-idx3-ubyte: has no pixels"):
        load(config, 0)


@pytest.mark.parametrize("labels", [[0, -1, 1, 1], [-1, -1, -2, -3]])
def test_negative_labels_are_refused(tmp_path: Path, labels: list[int]) -> None:
    for part in ("train", "test"):
        np.save(tmp_path / f"my_{part}_features.npy", np.zeros((4, 3, 3), dtype=np.uint8))
        np.save(tmp_path / f"my_{part}_targets.npy", np.array(labels))
    with pytest.raises(
        UserError, match=r"my_train_targets\.npy: .*label.* above|: label -1 at pos"
    ):
        load(DataConfig(name="npy", root=str(tmp_path)), 0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train_size": 41}, r"data\.train_size: 41 images asked for; there are 40, so 1 to 40"),
        ({"test_size": 21}, r"data\.test_size: 21 images asked for; there are 20, so 1 to 20"),
        ({"train_size": 8}, r"data\.validation_size: 8 of 8 training images leave none"),
    ],
)
def test_impossible_configurations_name_the_key(
    config: DataConfig, changes: dict[str, int], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        load(replace(config, **changes), 0)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["idx", "npy"])
def test_prepare_says_what_is_missing(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match=rf"data\.root: .*{tmp_path}"):
        prepare(DataConfig(name=name, root=str(tmp_path)))  # type: ignore[arg-type]


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can")
def test_a_folder_that_may_not_be_entered_is_named(config: DataConfig, tmp_path: Path) -> None:
    (tmp_path / "own").chmod(0o700)
    tmp_path.chmod(0o700)
    os.seteuid(65534)
    try:
        with pytest.raises(UserError, match="may not be read"):
            prepare(config)
    finally:
        os.seteuid(0)


def test_digits_need_no_files() -> None:
    config = DataConfig(name="digits")
    prepare(config)
    data = load(config, 0)
    assert (len(data.train), len(data.validation), len(data.test)) == (1293, 144, 360)
    assert data.train.images.shape[1:] == (1, 8, 8)
    assert data.class_names == tuple("0123456789")
    assert data.train.images.max() == 240
    assert set(data.test.images.unique().tolist()) == set(range(0, 241, 15))


def test_the_labs_files_with_the_labs_protocol(shared_data: Path) -> None:
    config = DataConfig(
        name="npy",
        root=str(shared_data / "mnist-lab"),
        validation_size=100,
        validation="first",
        scaling="per_pixel",
    )
    data = load(config, 25)
    assert (len(data.train), len(data.validation), len(data.test)) == (900, 100, 100)
    assert data.scaling.mean.shape == (1, 28, 28)
    assert data.class_names == tuple("0123456789")
    features = np.load(shared_data / "mnist-lab" / "mnist_train_features.npy")
    assert np.array_equal(data.validation.images[:, 0].numpy(), features[:100])
    assert np.isfinite(data.scaling.apply(data.test.images).numpy()).all()
