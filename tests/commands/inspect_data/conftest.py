"""Pictures to look at, and a run on some of them."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.caches import one_cache
from tests.commands.inspect_data.looking import WRONG
from tests.data.picture_folders import write_digits, write_pictures
from tests.runs import train_here


@pytest.fixture(scope="package", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with one_cache(tmp_path_factory):
        yield


@pytest.fixture(scope="package")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a folder of pictures with some wrong labels."""
    return write_digits(tmp_path_factory.mktemp("data") / "own", wrong=WRONG)


@pytest.fixture(scope="package")
def run(tmp_path_factory: pytest.TempPathFactory, digits: Path) -> Path:
    """Train a run on it."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    more = ["--data.name", "folder", "--data.root", str(digits), "--data.augment", "none"]
    assert train_here(folder, *more, "--train.epochs", "8") == 0
    return folder


@pytest.fixture
def doubled(tmp_path: Path) -> Path:
    """Make pictures of two sizes, with copies in other places."""
    root = write_pictures(tmp_path / "own", ("train", "validation", "test"), count=4)
    random = np.random.default_rng(5)
    for path in sorted(root.rglob("*.png")):
        Image.fromarray(random.integers(0, 256, (12, 10), dtype=np.uint8)).save(path)
    Image.new("RGB", (30, 40), "red").save(root / "train" / "cat" / "000.png")
    shutil.copy(root / "train" / "dog" / "000.png", root / "test" / "dog" / "copy.png")
    shutil.copy(root / "train" / "dog" / "000.png", root / "train" / "dog" / "copy.png")
    shutil.copy(root / "train" / "dog" / "001.png", root / "validation" / "cat" / "copy.png")
    shutil.copy(root / "test" / "cat" / "001.png", root / "test" / "cat" / "copy.png")
    return root
