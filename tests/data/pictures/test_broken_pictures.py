"""Pictures that cannot be read are all named, or left out."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from PIL import Image

from tests.data.picture_folders import prepared, write_pictures
from trainer.base.errors import UserError
from trainer.config.schema import DataConfig
from trainer.data.sources import reading

pytestmark = pytest.mark.usefixtures("caches")


def spoil(root: Path) -> None:
    cats = root / "train" / "cat"
    (cats / "003.png").write_bytes(b"no picture")
    content = (cats / "004.png").read_bytes()
    (cats / "004.png").write_bytes(content[: len(content) // 2])
    (cats / "none.png").symlink_to(root / "nowhere")


def test_broken_pictures_are_all_named(tmp_path: Path) -> None:
    root = write_pictures(tmp_path / "own")
    spoil(root)
    for _ in range(2):  # decoded or not
        with pytest.raises(UserError) as caught:
            prepared(root)
        message = str(caught.value)
        assert "3 of 41 pictures cannot be read" in message
        assert "data.on_bad: skip" in message
        for name in ("003.png", "004.png", "none.png"):
            assert f"- {root / 'train' / 'cat' / name}: " in message


def test_broken_pictures_are_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = write_pictures(tmp_path / "own")
    clean = prepared(root, validation_size=0)
    spoil(root)
    data = prepared(root, validation_size=0, on_bad="skip")
    assert data.train.targets.bincount().tolist() == [8, 10]
    assert torch.equal(data.test.images, clean.test.images)
    assert "3 of 41 pictures cannot be read and are left out" in caplog.text
    assert "004.png" in caplog.text
    caplog.clear()
    prepared(root, on_bad="skip")
    assert "004.png" in caplog.text
    assert (
        reading.describe_undecoded(DataConfig(name="folder", root=str(root), on_bad="skip")) is None
    )


def test_many_broken_pictures_fit_on_a_screen(tmp_path: Path) -> None:
    root = write_pictures(tmp_path / "own", count=20)
    for path in sorted((root / "test").rglob("*.png"))[1:16]:
        path.write_bytes(b"")
    with pytest.raises(UserError, match="15 of 80") as caught:
        prepared(root)
    assert "and 5 more" in str(caught.value)
    assert len(str(caught.value).splitlines()) == 13


def test_a_class_of_only_broken_pictures_is_named(tmp_path: Path) -> None:
    root = write_pictures(tmp_path / "own", count=2)
    for path in (root / "test" / "dog").iterdir():
        with Image.open(path) as file:
            file.resize((99, 99)).save(path, "JPEG")
        os.truncate(path, 900)  # its head is whole
    with pytest.raises(UserError, match="none of the pictures of class dog in test can be read"):
        prepared(root, on_bad="skip")
    for path in (root / "test" / "dog").iterdir():
        path.write_bytes(b"")
    with pytest.raises(UserError, match=r"no file in .*test/dog can be read"):
        prepared(root, on_bad="skip")
