"""Which pictures are of which part and class, by the folders that they lie in."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import pytest

from tests.data.archives import pack
from tests.data.picture_folders import prepared, write_pictures
from trainer.base.errors import UserError
from trainer.data.sources import listing

pytestmark = pytest.mark.usefixtures("caches")


def write_flat(root: Path, classes: tuple[str, ...] = ("cat", "dog"), count: int = 10) -> Path:
    write_pictures(root.parent, (root.name,), classes, count)
    return root


def test_classes_without_parts_are_all_to_train_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    flat = prepared(write_flat(tmp_path / "flat"), validation_size=0)
    assert "has no folder test: 4 of the pictures" in caplog.text
    assert (len(flat.train), len(flat.test)) == (16, 4)
    within = write_pictures(tmp_path / "own", ("train",))
    assert prepared(within, validation_size=0).fingerprint == flat.fingerprint


def test_folders_below_a_class_belong_to_it(tmp_path: Path) -> None:
    root = write_pictures(tmp_path / "own", ("train",), count=4)
    cats = root / "train" / "cat"
    (cats / "a" / "b").mkdir(parents=True)
    (cats / ".hidden").mkdir()
    (cats / "003.png").rename(cats / "a" / "b" / "1.png")
    (cats / "002.png").rename(cats / "a" / "2.png")
    (cats / "001.png").rename(cats / ".hidden" / "1.png")
    listed = listing.list_pictures(root).parts["train"]
    names = ["train/cat/000.png", "train/cat/a/2.png", "train/cat/a/b/1.png"]
    assert list(listed.places.names)[:4] == [*names, "train/dog/000.png"]
    assert listed.labels.tolist() == [0] * 3 + [1] * 4


def test_a_link_that_leads_back_is_refused(tmp_path: Path) -> None:
    root = write_pictures(tmp_path / "own", count=1)
    (root / "train" / "cat" / "again").symlink_to(root / "train", target_is_directory=True)
    with pytest.raises(UserError, match="cat/again is a link to a folder that it lies in"):
        prepared(root)


def test_a_link_to_pictures_elsewhere_is_followed(tmp_path: Path) -> None:
    root = write_pictures(tmp_path / "own", ("train",), count=4)
    write_flat(tmp_path / "more", ("cows",), 2)
    (root / "train" / "cat" / "more").symlink_to(tmp_path / "more")
    listed = listing.list_pictures(root).parts["train"]
    assert "train/cat/more/cows/000.png" in list(listed.places.names)


@pytest.mark.parametrize("name", ["test", "Validation", "dev"])
def test_a_class_named_like_a_part_is_not_misread(tmp_path: Path, name: str) -> None:
    flat = write_flat(tmp_path / "own", ("cat", "dog", name), count=4)
    with pytest.raises(UserError) as raised:
        prepared(flat)
    assert "train, with all other classes" in str(raised.value)
    within = write_pictures(tmp_path / "within", ("train",), ("cat", "dog", name), count=4)
    assert prepared(within, validation_size=0).class_names == tuple(sorted(("cat", "dog", name)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda root: (root / "a.png").touch(), "a.png is not in the folder of a class"),
        (lambda root: (root / "cow").mkdir(), "cow has no pictures; they end in"),
        (lambda root: (root / "dog").rename(root.parent / "dog"), "at least 2 folders, one a clas"),
        (lambda root: (root / "cow").symlink_to("gone"), "cow is a link that leads nowhere"),
    ],
)
def test_what_is_wrong_with_classes_without_parts(
    tmp_path: Path, change: Any, message: str
) -> None:
    root = write_flat(tmp_path / "own")
    change(root)
    with pytest.raises(UserError, match=f"data.root: .*{message}"):
        prepared(root)


@pytest.mark.parametrize("below", ["", "photos/", "./"])
@pytest.mark.parametrize("ending", [".zip", ".tar", ".tar.gz", ".tar.xz", ".tar.bz2"])
def test_an_archive_is_the_same_set_as_its_folder(tmp_path: Path, ending: str, below: str) -> None:
    root = write_pictures(tmp_path / "own", ("train", "validation", "test"), count=3)
    (root / "__MACOSX").mkdir()
    (root / "__MACOSX" / "._a.png").write_bytes(b"no picture")
    archive = pack(root, tmp_path / f"own{ending}", below)
    before = archive.read_bytes()
    data = prepared(archive)
    assert data.fingerprint == prepared(root).fingerprint
    assert archive.read_bytes() == before
    test = listing.list_part(archive, "test")
    assert (list(test.parts), test.class_names) == (["test"], ("cat", "dog"))


def test_an_archive_of_classes_alone(tmp_path: Path) -> None:
    flat = write_flat(tmp_path / "flat")
    expected = prepared(flat).fingerprint
    for below in ("", "photos/"):
        archive = pack(flat, tmp_path / f"flat{len(below)}.zip", below)
        with zipfile.ZipFile(archive, "a") as file:
            file.writestr("README.md", "Photos of two animals")
        assert prepared(archive).fingerprint == expected
        assert listing.has_part(archive, "test")
        assert len(listing.list_part(archive, "test")) == 20


def test_messages_name_the_archive(tmp_path: Path) -> None:
    root = write_pictures(tmp_path / "own", count=1)
    (root / "test" / "dog" / "000.png").unlink()
    archive = pack(root, tmp_path / "own.zip")
    with pytest.raises(UserError, match=f"data.root: {archive}: test lacks dog, unlike {archive}"):
        prepared(archive)


def remove(path: Path) -> None:
    for child in path.iterdir():
        child.unlink()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda root: (root / "train").rename(root / "trained"), "has no folder train; it must"),
        (lambda root: (root / "test").rename(root / "testing"), "testing would be ignored; name"),
        (lambda root: (root / "val").mkdir(), "val would be ignored; name it validation"),
        (lambda root: (root / "test" / "dog").rename(root / "dog"), "test lacks dog, unlike"),
        (lambda root: (root / "test" / "cow").mkdir(), "test has cow, unlike .*same classes"),
        (lambda root: remove(root / "test" / "dog"), r"test/dog has no pictures; they end in"),
        (lambda root: (root / "train" / "a.png").touch(), "is not in the folder of a class"),
        (
            lambda root: (root / "validation").symlink_to("gone"),
            "validation is a link that le",
        ),
        (
            lambda root: (root / "train" / "cow").symlink_to("gone"),
            "train/cow is a link that le",
        ),
    ],
)
def test_a_folder_of_another_layout_is_refused(tmp_path: Path, change: Any, message: str) -> None:
    root = write_pictures(tmp_path / "own", count=1)
    change(root)
    with pytest.raises(UserError, match=rf"data\.root: .*{message}"):
        prepared(root)


@pytest.mark.parametrize(
    ("part", "name", "right"),
    [
        ("validation", name, "validation")
        for name in ("Val", "VALIDATION", "valid", "Valid", "dev", "val2017", "val_set")
    ]
    + [("test", name, "test") for name in ("Test", "TEST", "tests", "test_images", "Testing")]
    + [("test", name, "validation or test") for name in ("eval", "holdout", "Hold-Out", "held_out")]
    + [("train", name, "train") for name in ("Train", "TRAINING", "train_set")],
)
def test_a_part_under_another_name_is_an_error(
    tmp_path: Path, part: str, name: str, right: str
) -> None:
    root = write_pictures(tmp_path / "own", ("train", "validation", "test"), count=1)
    (root / part).rename(root / name)
    with pytest.raises(UserError) as raised:
        prepared(root)
    assert str(raised.value) == f"data.root: {root / name} would be ignored; name it {right}"


def test_a_link_to_a_part_does_not_count(tmp_path: Path) -> None:
    root = write_pictures(tmp_path / "own", ("train", "validation", "test"))
    (root / "val").symlink_to(root / "validation")
    assert len(prepared(root).validation) == 20
    (root / "val").unlink()
    write_pictures(root, ("val",), count=1)
    advice = f"move its pictures into {root / 'validation'}, or remove it"
    with pytest.raises(UserError, match=f"own/val would be ignored; {advice}"):
        prepared(root)


def test_folders_next_to_the_parts_are_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = write_pictures(tmp_path / "own")
    (root / "unsorted").mkdir()
    (root / "one.png").touch()
    (root / "notes.txt").touch()
    prepared(root)
    assert "none of the folders train, validation, test: one.png, unsorted\n" in caplog.text
