"""Fashion-MNIST and MNIST: where they are looked for, and that every byte is verified."""

from __future__ import annotations

import gzip
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from tests.data.conftest import Published
from trainer.base.errors import UserError
from trainer.config.schema import DataConfig
from trainer.data.loading import load
from trainer.data.sources import idx, known
from trainer.data.sources.known_sets.idx_sets import FASHION_MNIST
from trainer.data.sources.reading import prepare


def put(published: Published, folder: Path, only: tuple[str, ...] = idx.NAMES) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in only:
        (folder / f"{name}.gz").write_bytes(published.files[f"{name}.gz"])


def test_the_search_order(
    published: Published, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = published.known
    assert known.find(there, None) is None
    put(published, cache)
    assert known.find(there, None) == known.Location(cache, f"cache {cache}", is_cache=True)
    put(published, tmp_path / "package")
    location = known.find(there, None)
    assert location is not None
    assert location.folder == tmp_path / "package"
    assert "Debian package dataset-fashion-mnist" in location.origin
    mine = tmp_path / "mine"
    monkeypatch.setenv("LOCKSTEP_DATA", str(mine))
    for name in ("fashion-mnist", "fashion_mnist"):
        put(published, mine / name)
        location = known.find(there, None)
        assert location is not None
        assert location.folder == mine / name
    put(published, tmp_path / "root")
    location = known.find(there, str(tmp_path / "root"))
    assert location == known.Location(tmp_path / "root", f"data.root {tmp_path / 'root'}")


def test_only_data_root_is_searched_where_it_is_given(
    published: Published, cache: Path, tmp_path: Path
) -> None:
    put(published, cache)
    with pytest.raises(UserError, match=r"data\.root: .*typo there is no such folder"):
        known.prepare(published.known, str(tmp_path / "typo"))
    put(published, tmp_path / "root", only=idx.TRAIN)
    with pytest.raises(UserError, match=r"data\.root: .* lacks t10k-images-idx3-ubyte, t10k-lab"):
        known.read(published.known, str(tmp_path / "root"))


def test_a_folder_that_the_user_named_with_some_of_the_files_is_not_skipped(
    published: Published, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(published, cache)
    put(published, tmp_path / "mine" / "fashion_mnist", only=idx.TRAIN)
    monkeypatch.setenv("LOCKSTEP_DATA", str(tmp_path / "mine"))
    with pytest.raises(UserError, match=r"LOCKSTEP_DATA.*: .* lacks t10k-images"):
        known.find(published.known, None)


def test_unpacked_names_are_accepted(published: Published, tmp_path: Path) -> None:
    data = known.read(published.known, str(tmp_path / "publisher"))
    assert len(data.train.labels) == 40
    assert data.class_names == FASHION_MNIST.class_names


@pytest.mark.parametrize("name", idx.NAMES)
def test_one_changed_byte_is_noticed(published: Published, tmp_path: Path, name: str) -> None:
    path = tmp_path / "publisher" / name
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match=f"{name}: this is an unknown or altered file"):
        known.read(published.known, str(tmp_path / "publisher"))


def test_damage_in_the_first_location_is_an_error_and_the_next_is_not_searched(
    published: Published, cache: Path, tmp_path: Path
) -> None:
    put(published, cache)
    put(published, tmp_path / "package")
    path = tmp_path / "package" / "train-images-idx3-ubyte.gz"
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(UserError, match=r"package/train-images-idx3-ubyte\.gz: .*cut"):
        known.read(published.known, None)


def test_load_never_downloads(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(known.KNOWN, "fashion_mnist", replace(FASHION_MNIST, package_folder=None))
    with pytest.raises(UserError, match=r"data\.name: the files of fashion_mnist were not found"):
        load(DataConfig(), 0)
    assert not cache.exists()


def test_the_real_fashion_mnist(shared_data: Path) -> None:
    config = DataConfig(root=str(shared_data / "fashion-mnist"))
    prepare(config)
    data = load(config, 0)
    assert (len(data.train), len(data.validation), len(data.test)) == (54000, 6000, 10000)
    assert data.validation.targets.bincount().tolist() == [600] * 10
    assert data.test.targets.bincount().tolist() == [1000] * 10
    assert data.class_names[9] == "Ankle boot"
    # Published over all 60,000: mean 0.2860, deviation 0.3530 of the full range.
    assert data.scaling.mean.item() / 255 == pytest.approx(0.2860, abs=1e-3)
    assert data.scaling.deviation.item() / 255 == pytest.approx(0.3530, abs=1e-3)


def test_the_labs_part_of_fashion_mnist_gzipped_again(shared_data: Path, tmp_path: Path) -> None:
    original = shared_data / "fashion-mnist"
    shutil.copyfile(original / f"{idx.NAMES[0]}.gz", tmp_path / f"{idx.NAMES[0]}.gz")
    for name in idx.NAMES[1:]:
        with gzip.open(original / f"{name}.gz") as packed:
            content = packed.read()
        (tmp_path / f"{name}.gz").write_bytes(gzip.compress(content, compresslevel=1))
    config = DataConfig(root=str(tmp_path), train_size=10000, test_size=1000, validation_size=0)
    gzipped_again = load(config, 0)
    assert gzipped_again.fingerprint == load(replace(config, root=str(original)), 5).fingerprint
    assert gzipped_again.train.targets[:6].tolist() == [9, 0, 0, 3, 0, 2]


@pytest.mark.parametrize(
    ("name", "source", "target", "message"),
    [
        ("fashion_mnist", "t10k-images-idx3-ubyte", "train-images-idx3-ubyte",
         "this is t10k-images-idx3-ubyte of fashion_mnist, not train-images-idx3-ubyte of"),
        ("fashion_mnist", "train-labels-idx1-ubyte", "train-images-idx3-ubyte",
         "this is train-labels-idx1-ubyte of fashion_mnist, not train-images-idx3-ubyte of"),
        ("mnist", "", "", "this is train-images-idx3-ubyte of fashion_mnist, not train-images-idx"),
    ],
)  # fmt: skip
def test_mislabelled_files_are_recognised(
    shared_data: Path, tmp_path: Path, name: str, source: str, target: str, message: str
) -> None:
    original = shared_data / "fashion-mnist"
    for file in idx.NAMES:
        taken = source if file == target else file
        shutil.copyfile(original / f"{taken}.gz", tmp_path / f"{file}.gz")
    with pytest.raises(UserError, match=rf"train-images-idx3-ubyte\.gz: .*{message}"):
        load(DataConfig(name=name, root=str(tmp_path)), 0)  # type: ignore[arg-type]
