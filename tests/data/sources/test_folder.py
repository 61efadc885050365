"""A folder of pictures, from its files to a data set."""

from __future__ import annotations

import os
import sys
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests.data.picture_folders import prepared, write_pictures
from trainer.base.errors import UserError
from trainer.config.schema import DataConfig
from trainer.data.loading import load
from trainer.data.pictures import decoding
from trainer.data.pictures.decoding import ImageInfo
from trainer.data.sources import picture_plan, reading
from trainer.data.sources.picture_index import Contents

pytestmark = pytest.mark.usefixtures("caches")


def pixels_of(root: Path, part: str) -> np.ndarray:
    """The pictures of a part in the order in which they are used."""
    names = [path.name for path in sorted((root / part / "cat").iterdir())]
    paths = [root / part / kind / name for name in names for kind in ("cat", "dog")]
    return np.stack([decoding.decode(path, 1, (12, 10)) for path in paths])


def test_all_parts_are_read(tmp_path: Path) -> None:
    root = write_pictures(tmp_path / "own", ("train", "validation", "test"))
    data = prepared(root)
    assert data.class_names == ("cat", "dog")
    assert str(root) in data.source
    for part in ("train", "validation", "test"):
        images = getattr(data, part)
        assert np.array_equal(images.images.numpy(), pixels_of(root, part))
        assert images.targets.tolist() == [0, 1] * 10


def test_validation_pictures_are_taken_as_they_are(tmp_path: Path) -> None:
    root = write_pictures(tmp_path / "own", ("train", "validation", "test"))
    assert len(prepared(root, validation_size=6).validation) == 6
    none = prepared(root, validation_size=0)
    assert (len(none.train), len(none.validation)) == (20, 0)
    with pytest.raises(UserError, match=r"data\.validation_size: 21 images asked for; there are 2"):
        prepared(root, validation_size=21)


def test_without_validation_some_are_held_out(tmp_path: Path) -> None:
    data = prepared(write_pictures(tmp_path / "own"))
    assert (len(data.train), len(data.validation), len(data.test)) == (18, 2, 20)


def test_fewer_pictures_are_of_all_classes(tmp_path: Path) -> None:
    data = prepared(write_pictures(tmp_path / "own"), train_size=8, test_size=4, validation_size=2)
    assert data.train.targets.bincount().tolist() == [3, 3]
    assert data.test.targets.tolist() == [0, 1, 0, 1]


def bytes_of_each(images: torch.Tensor) -> set[bytes]:
    return {image.numpy().tobytes() for image in images}


def test_without_test_pictures_some_of_the_training_ones_are_kept(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = write_pictures(tmp_path / "own", ("train",), count=20)
    data = prepared(root, validation_size=0)
    assert data.train.targets.bincount().tolist() == [16, 16]
    assert data.test.targets.bincount().tolist() == [4, 4]
    kept = "no folder test: 8 of the pictures in train, chosen by their content, are kept for the"
    assert kept in caplog.text
    assert kept in data.source
    config = DataConfig(name="folder", root=str(root), validation_size=0)
    assert torch.equal(load(config, 1).test.images, data.test.images)
    # Another name does not change sides, and equal files do not part.
    for path in sorted((root / "train" / "cat").iterdir()):
        path.with_name(f"z{path.name}").write_bytes(path.read_bytes())
    doubled = prepared(root, validation_size=0)
    assert not bytes_of_each(doubled.train.images) & bytes_of_each(doubled.test.images)
    assert bytes_of_each(doubled.test.images) == bytes_of_each(data.test.images)


def test_hidden_files_links_and_names_in_upper_case(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = write_pictures(tmp_path / "own", count=3)
    cats = root / "train" / "cat"
    for name in (".DS_Store", "._000.png", "notes.txt", ".hidden.png"):
        (cats / name).write_bytes(b"no picture")
    (root / "train" / ".ipynb_checkpoints").mkdir()
    (cats / "001.png").rename(cats / "001.PNG")
    (cats / "002.png").rename(tmp_path / "moved.png")
    (cats / "002.png").symlink_to(tmp_path / "moved.png")
    (root / "train" / "dog").rename(tmp_path / "dogs")
    (root / "train" / "dog").symlink_to(tmp_path / "dogs")
    (tmp_path / "link").symlink_to(root)
    data = prepared(tmp_path / "link", validation_size=0)
    assert data.train.targets.tolist() == [0, 1] * 3
    assert "left out, as they end in none of .avif, .bmp, " in caplog.text
    assert "train/cat/notes.txt" in caplog.text


@pytest.mark.parametrize(
    ("infos", "keys", "size", "channels"),
    [
        ([ImageInfo(28, 28, 1)] * 3, {}, (28, 28), 1),
        ([ImageInfo(10, 20, 1), ImageInfo(30, 40, 1), ImageInfo(50, 30, 3)], {}, (30, 30), 3),
        (
            [ImageInfo(3000, 4000, 3), ImageInfo(3000, 4000, 3), ImageInfo(4000, 3000, 3)],
            {},
            (96, 128),
            3,
        ),
        ([ImageInfo(1, 4000, 1)], {}, (1, 128), 1),
        ([ImageInfo(28, 28, 1)], {"image_size": [64, 32], "channels": 3}, (64, 32), 3),
        ([ImageInfo(28, 28, 3)], {"channels": 1}, (28, 28), 1),
    ],
)
def test_the_rules_of_size_and_channels(
    infos: list[ImageInfo], keys: dict[str, Any], size: tuple[int, int], channels: int
) -> None:
    contents = Contents(
        sha256=np.zeros((len(infos), 32), np.uint8),
        sizes=np.array([(info.height, info.width) for info in infos], np.int32),
        channels=np.array([info.channels for info in infos], np.int16),
        value_ranges=np.full((len(infos), 2), np.nan),
        is_decoded=np.zeros(len(infos), bool),
        errors={},
    )
    target = picture_plan.choose_target(DataConfig(name="folder", root="own", **keys), contents)
    assert (target.image_size, target.channels) == (size, channels)


def test_pictures_of_many_sizes_become_one(tmp_path: Path) -> None:
    root = write_pictures(tmp_path / "own", size=(12, 10), channels=3)
    Image.new("RGB", (300, 5), "red").save(root / "train" / "cat" / "000.png")
    data = prepared(root, validation_size=0)
    assert data.train.images.shape == (20, 3, 12, 10)
    assert data.train.images[0].flatten(1)[:, 0].tolist() == [255, 0, 0]
    small = prepared(root, validation_size=0, image_size=[6, 8], channels=1)
    assert small.train.images.shape == (20, 1, 6, 8)


def test_left_on_the_disk_it_is_the_same_set(tmp_path: Path) -> None:
    for channels in (1, 3):
        root = write_pictures(tmp_path / f"own-{channels}", channels=channels)
        resident = prepared(root)
        on_disk = prepared(root, memory_limit_mb=0)
        assert not isinstance(on_disk.train.images, torch.Tensor)
        assert on_disk.fingerprint == resident.fingerprint


SYSTEM = ("@eaDir", "__MACOSX", "lost+found", "$RECYCLE.BIN", "System Volume Information")


def test_files_of_systems_are_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = write_pictures(tmp_path / "own")
    before = prepared(root).fingerprint
    caplog.clear()
    for place in (root, root / "train", root / "test" / "cat"):
        for name in SYSTEM:
            (place / name).mkdir()
            (place / name / "a.png").write_bytes(b"no picture")
        for name in ("Thumbs.db", ".DS_Store", "desktop.ini"):
            (place / name).touch()
    assert prepared(root).fingerprint == before
    assert caplog.text == ""


CAFE = unicodedata.normalize("NFC", "café"), unicodedata.normalize("NFD", "café")


@pytest.mark.parametrize(
    ("name", "other"), [CAFE, CAFE[::-1], ("dog", "dog "), (" dog", "dog"), ("dog", "dog\u00a0")]
)
def test_two_ways_to_write_a_class_are_one_class(tmp_path: Path, name: str, other: str) -> None:
    root = write_pictures(tmp_path / "own", classes=("ant", name))
    (root / "test" / name).rename(root / "test" / other)
    data = prepared(root)
    assert data.class_names == ("ant", CAFE[0] if name in CAFE else "dog")
    plain = prepared(write_pictures(tmp_path / "plain", classes=("ant", "b")))
    assert data.fingerprint == plain.fingerprint
    write_pictures(root, ("train",), classes=(other,), count=1)
    with pytest.raises(UserError, match="train has two folders of the class") as raised:
        prepared(root)
    assert "{!a} and {!a}".format(*sorted((name, other))) in str(raised.value)


def test_names_that_only_look_alike_are_told_apart(tmp_path: Path) -> None:
    root = write_pictures(tmp_path / "own", classes=("cat", "dog"), count=1)
    (root / "test" / "cat").rename(root / "test" / "c\u0430t")  # a Cyrillic letter
    with pytest.raises(UserError, match=r"lacks cat and has c.t \('c\\u0430t'\), unlike"):
        prepared(root)


def test_a_class_of_broken_pictures_is_named_by_its_folder(tmp_path: Path) -> None:
    root = write_pictures(tmp_path / "own", classes=("cat", CAFE[1]), count=1)
    (root / "train" / CAFE[1] / "000.png").write_bytes(b"no picture")
    with pytest.raises(UserError, match=f"no file in {root / 'train' / CAFE[1]} can be read: "):
        prepared(root, on_bad="skip")


@pytest.mark.skipif(sys.platform != "linux", reason="names of files are bytes there")
@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes in folders")
def test_a_pipe_is_refused(tmp_path: Path) -> None:
    root = write_pictures(tmp_path / "own", count=2)
    pipe = root / "train" / "dog" / "pipe.png"
    os.mkfifo(pipe)
    with pytest.raises(UserError, match=f"{pipe}: is not a regular file"):
        prepared(root)


def test_names_that_are_not_utf_8(tmp_path: Path) -> None:
    root = write_pictures(tmp_path / "own")
    expected = prepared(root).fingerprint
    odd = Path(os.fsdecode(bytes(tmp_path) + b"/caf\xe9"))
    root.rename(odd)
    (tmp_path / "link").symlink_to(odd)
    assert prepared(tmp_path / "link").fingerprint == expected
    picture = odd / "train" / "cat" / "000.png"
    picture.rename(picture.with_name("\udce9.png"))
    with pytest.raises(UserError, match=r"cat/.udce9\.png' has a name that is not UTF-8; rename"):
        prepared(tmp_path / "link")


def test_a_root_that_cannot_be_looked_at(tmp_path: Path) -> None:
    loop = tmp_path / "loop"
    loop.symlink_to("loop")
    with pytest.raises(UserError, match=f"data.root: there is no folder {loop}"):
        prepared(loop)
    with pytest.raises(UserError, match=r"aaa: cannot be read \(File name too long\)"):
        prepared(tmp_path / ("a" * 300))


def test_a_link_to_itself_leads_nowhere(tmp_path: Path) -> None:
    root = write_pictures(tmp_path / "own")
    (root / "train" / "cat" / "loop.jpg").symlink_to("loop.jpg")
    with pytest.raises(UserError, match=r"train/cat/loop\.jpg: there is no such file"):
        prepared(root)
    (root / "train" / "cow").symlink_to("cow")
    with pytest.raises(UserError, match="train/cow is a link that leads nowhere"):
        prepared(root)


def test_one_class_is_too_few(tmp_path: Path) -> None:
    root = write_pictures(tmp_path / "own", classes=("cat",))
    with pytest.raises(UserError, match=r"at least 2 folders, one a class; found cat$"):
        prepared(root)
    inner = tmp_path / "outer" / "data" / "own"
    inner.parent.mkdir(parents=True)
    root.rename(inner)
    with pytest.raises(UserError, match=f"found data; all pictures lie in {inner}: is that meant"):
        prepared(tmp_path / "outer")
    with pytest.raises(UserError, match=r"data\.root: there is no folder .*none"):
        prepared(tmp_path / "none")


def test_too_few_to_keep_some_for_the_test(tmp_path: Path) -> None:
    root = write_pictures(tmp_path / "own", ("train",), count=1)
    with pytest.raises(UserError, match="no folder test, and of the 1 pictures in train/cat none"):
        prepared(root)


def test_images_know_their_files(tmp_path: Path) -> None:
    root = write_pictures(tmp_path / "own", count=2)
    prepared(root)
    source = reading.read(DataConfig(name="folder", root=str(root)))
    assert source.train.names is not None
    assert tuple(source.train.names) == tuple(
        f"train/{kind}/{number:03}.png" for number in range(2) for kind in ("cat", "dog")
    )
