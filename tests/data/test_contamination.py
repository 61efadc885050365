"""A run says at its start which of the pictures that judge it are copies of training pictures."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

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
