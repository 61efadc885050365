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
