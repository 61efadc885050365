"""Published sets in their own formats, from small files: pixels upright, labels, parts, classes."""

from __future__ import annotations

import tarfile
from pathlib import Path

import numpy as np
import pytest

from tests.data import known_files
from tests.data.known_files import colour_images, published_here
from trainer.base.errors import UserError
from trainer.config.schema import DataConfig
from trainer.data.loading import load
from trainer.data.sources import known
from trainer.data.sources.known_sets.registry import KNOWN
from trainer.data.sources.source_data import SourceData


def read(name: str, folder: Path) -> SourceData:
    return known.read(published_here(KNOWN[name], folder), str(folder))


def first_pixels(data: SourceData) -> list[list[int]]:
    """Return the pixel at row 0 and column 1 of each training image."""
    images = data.train.images
    assert isinstance(images, np.ndarray)
    return images[:, :, 0, 1].tolist()


def test_cifar10_from_its_archive_and_from_its_files(tmp_path: Path) -> None:
    known_files.write_cifar10(tmp_path, each=20)
    packed = read("cifar10", tmp_path)
    assert packed.train.images.shape == (100, 3, 32, 32)
    assert packed.train.labels.tolist() == [number % 10 for number in range(100)]
    assert first_pixels(packed) == [[number, 100, 200] for number in range(100)]
    np.testing.assert_array_equal(
        packed.test.images, colour_images(120)[100:].transpose(0, 3, 1, 2)
    )
    assert packed.class_names is not None
    assert packed.class_names[3] == "cat"
    with tarfile.open(tmp_path / "cifar-10-binary.tar.gz") as archive:
        archive.extractall(tmp_path / "unpacked", filter="data")
    for root in (tmp_path / "unpacked", tmp_path / "unpacked" / "cifar-10-batches-bin"):
        unpacked = read("cifar10", root)
        np.testing.assert_array_equal(unpacked.train.images, packed.train.images)
        np.testing.assert_array_equal(unpacked.test.labels, packed.test.labels)


def test_cifar100_has_the_fine_labels(tmp_path: Path) -> None:
    members = known_files.cifar_members("cifar-100-binary", ["train.bin", "test.bin"], 2, each=12)
    known_files.write_tar(tmp_path / "cifar-100-binary.tar.gz", members)
    data = read("cifar100", tmp_path)
    assert data.train.labels.tolist() == [number % 10 for number in range(12)]
    assert first_pixels(data) == [[number, 100, 200] for number in range(12)]
    assert data.class_names is not None
    assert len(data.class_names) == 100
    assert data.class_names[8] == "bicycle"


def test_in_svhn_the_label_10_is_the_digit_0(tmp_path: Path) -> None:
    known_files.write_svhn(tmp_path, count=12)
    data = read("svhn", tmp_path)
    assert data.train.labels.tolist() == [1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1, 2]
    assert first_pixels(data) == [[number, 100, 200] for number in range(12)]


def test_letters_of_emnist_stand_upright_and_count_from_0(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = colour_images(26, size=28)[..., 0]
    folder = tmp_path / "emnist"
    folder.mkdir()
    known_files.write_emnist(folder, "letters", images, np.arange(1, 27))
    # All sets of EMNIST come in one file, and are found in one folder.
    monkeypatch.setenv("LOCKSTEP_DATA", str(tmp_path))
    data = known.read(published_here(KNOWN["emnist_letters"], folder), None)
    np.testing.assert_array_equal(data.train.images, images[:, None])
    assert data.train.labels.tolist() == list(range(26))
    assert data.class_names is not None
    assert (data.class_names[0], data.class_names[25]) == ("a", "z")


def test_capitals_of_emnist_stand_for_both_forms_of_some_letters() -> None:
    names = KNOWN["emnist"].class_names
    assert len(names) == 47
    assert (names[10], names[35], names[36], names[46]) == ("A", "Z", "a", "t")
    assert not {"c", "i", "o", "z"} & set(names)


def test_qmnist_has_the_digit_in_the_first_of_eight_numbers(tmp_path: Path) -> None:
    images = colour_images(20, size=28)[..., 0]
    known_files.write_qmnist(tmp_path, images, np.arange(20) % 10)
    data = read("qmnist", tmp_path)
    np.testing.assert_array_equal(data.train.images, images[:, None])
    assert data.test.labels.tolist() == [number % 10 for number in range(20)]


@pytest.mark.parametrize(("name", "channels"), [("pneumoniamnist", 1), ("bloodmnist", 3)])
def test_medmnist_brings_its_own_validation_images(
    tmp_path: Path, name: str, channels: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = colour_images(10, size=28)
    known_files.write_medmnist(tmp_path, name, images if channels == 3 else images[..., 0])
    monkeypatch.setitem(KNOWN, name, published_here(KNOWN[name], tmp_path))
    data = load(DataConfig(name=name, root=str(tmp_path)), 0)
    assert [len(part) for part in (data.train, data.validation, data.test)] == [10, 4, 2]
    pixels, labels = data.train.images[:], data.train.targets
    np.testing.assert_array_equal(pixels, images.transpose(0, 3, 1, 2)[:, :channels])
    assert labels.tolist() == [0, 1] * 5


def test_chestmnist_has_any_number_of_labels_to_an_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    labels = np.eye(14, dtype=np.uint8)[np.arange(30) % 14]
    labels[::7], labels[::5, 3] = 0, 1
    arrays = {
        f"{part}_images": np.zeros((30, 28, 28), np.uint8) for part in ("train", "val", "test")
    }
    arrays |= {f"{part}_labels": labels for part in ("train", "val", "test")}
    np.savez(tmp_path / "chestmnist.npz", **arrays)
    monkeypatch.setitem(KNOWN, "chestmnist", published_here(KNOWN["chestmnist"], tmp_path))
    data = load(DataConfig(name="chestmnist", root=str(tmp_path), multi_label=True), 0)
    assert data.class_names[0] == "atelectasis"
    assert data.validation.targets.tolist() == labels.tolist()


@pytest.mark.parametrize("name", ["cifar10", "svhn", "pathmnist"])
def test_one_changed_byte_is_noticed_and_the_file_named(tmp_path: Path, name: str) -> None:
    if name == "cifar10":
        known_files.write_cifar10(tmp_path, each=2)
    elif name == "svhn":
        known_files.write_svhn(tmp_path)
    else:
        known_files.write_medmnist(tmp_path, name, colour_images(10, size=28))
    published = published_here(KNOWN[name], tmp_path)
    path = tmp_path / published.files[-1].name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match=f"{path.name}: this is an unknown or altered file") as told:
        known.read(published, str(tmp_path))
    assert "get the published file" in str(told.value)


def test_more_images_than_the_memory_may_hold(tmp_path: Path) -> None:
    known_files.write_svhn(tmp_path)
    with pytest.raises(UserError, match=r"train_32x32\.mat: .* of data\.memory_limit_mb"):
        known.read(published_here(KNOWN["svhn"], tmp_path), str(tmp_path), limit_bytes=1000)


def test_a_folder_without_the_files_is_told_what_it_must_have(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"lacks cifar-100-binary\.tar\.gz; .*or, unpacked.*train"):
        known.prepare(KNOWN["cifar100"], str(tmp_path))
    file = tmp_path / "cifar-100-binary.tar.gz"
    file.touch()
    with pytest.raises(UserError, match=r"cifar-100-binary\.tar\.gz is not a folder"):
        known.prepare(KNOWN["cifar100"], str(file))
