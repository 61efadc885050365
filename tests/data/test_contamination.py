"""A run says at its start which of the pictures that judge it are copies of training pictures."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.data.picture_folders import prepared, write_pictures
from tests.runs import train_here

pytestmark = pytest.mark.usefixtures("caches")


def warnings_of(root: Path, **keys: object) -> tuple[str, ...]:
    return prepared(root, **keys).warnings


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_pictures(tmp_path / "data", ("train", "validation", "test"), count=6)


def test_sets_without_copies_are_not_spoken_of(root: Path) -> None:
    assert warnings_of(root) == ()


def test_copies_in_given_parts_are_counted_and_named(root: Path) -> None:
    shutil.copy(root / "train/cat/003.png", root / "validation/cat/copy.png")
    shutil.copy(root / "train/cat/004.png", root / "test/cat/same class.png")
    shutil.copy(root / "train/cat/004.png", root / "test/dog/other class.png")
    in_validation, in_test = warnings_of(root)
    assert "1 of 13 validation pictures is an exact copy of a training picture," in in_validation
    assert "validation/cat/copy.png (in training train/cat/003.png)" in in_validation
    assert "2 of 14 test pictures are exact copies of training pictures" in in_test
    assert "(1 with another class)" in in_test
    assert "test/dog/other class.png (in training train/cat/004.png)" in in_test


def test_a_class_that_is_right_once_is_right(root: Path) -> None:
    shutil.copy(root / "train/cat/004.png", root / "train/dog/wrong.png")
    shutil.copy(root / "train/cat/004.png", root / "test/dog/copy.png")
    (about,) = warnings_of(root)
    assert "with another class" not in about


def test_many_copies_are_not_all_named(root: Path) -> None:
    for picture in (root / "train").rglob("*.png"):
        shutil.copy(picture, root / "test" / picture.parent.name / f"of train {picture.name}")
    (about,) = warnings_of(root)
    assert "12 of 24 test pictures" in about
    assert about.endswith(", and 2 more")


def test_only_pictures_that_are_trained_on_count(root: Path) -> None:
    """The first training pictures are of all classes in turn."""
    shutil.copy(root / "train/dog/005.png", root / "test/dog/copy.png")
    assert len(warnings_of(root)) == 1
    assert warnings_of(root, train_size=10) == ()


def test_validation_pictures_that_were_held_out_count_too(root: Path) -> None:
    shutil.rmtree(root / "validation")
    for picture in list((root / "train").rglob("*.png")):
        shutil.copy(picture, picture.with_name(f"again {picture.name}"))
    (about,) = warnings_of(root, validation_size=4)
    assert " of 4 validation pictures" in about


def test_a_run_warns_and_goes_on(
    root: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copy(root / "train/cat/003.png", root / "test/cat/copy.png")
    keys = ["--data.name", "folder", "--data.root", str(root), "--train.epochs", "1"]
    assert train_here(tmp_path / "run", *keys, "--data.augment", "none") == 0
    assert "1 of 13 test pictures is an exact copy" in caplog.text


@pytest.mark.parametrize("store_size", ["null", "24"])
def test_a_run_looks_for_near_copies_itself(
    root: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    store_size: str,
) -> None:
    patches = np.random.default_rng(1).integers(0, 256, (6, 8), dtype=np.uint8)
    picture = Image.fromarray(patches).resize((64, 48))
    picture.save(root / "train/cat/patches.png")
    picture.save(root / "test/cat/compressed.jpg", quality=60)
    keys = ["--data.name", "folder", "--data.root", str(root), "--train.epochs", "1"]
    keys += ["--data.augment", "none", "--data.image_size", "16", "--data.store_size", store_size]
    assert train_here(tmp_path / "run", *keys) == 0
    warned = "1 of 13 test pictures look nearly the same as training pictures"
    assert caplog.text.count(warned) == 1
    assert "test/cat/compressed.jpg (in training train/cat/patches.png)" in caplog.text
    monkeypatch.setattr("trainer.data.near_copies.keep", None)  # known now, and not looked for
    assert train_here(tmp_path / "again", *keys) == 0
    assert caplog.text.count(warned) == 2
