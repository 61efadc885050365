"""A run, and pictures to classify."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from tests.runs import Run, train_here
from trainer.data.sources import digits


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("runs") / "run"
    assert train_here(folder, "--train.epochs", "3", "--data.train_size", "800") == 0
    return Run(folder, 0)


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first test images of the digits as pictures, some of them enlarged and in colour."""
    images = digits.read().test.images[:7, 0]
    folder = tmp_path_factory.mktemp("photos")
    (folder / "more").mkdir()
    for number, image in enumerate(images):
        pixels = Image.fromarray(image)
        if number % 2:
            pixels = pixels.resize((80, 80), Image.Resampling.NEAREST).convert("RGB")
        pixels.save(folder / ("more" if number > 4 else "") / f"{number}.png")
    (folder / "notes.txt").write_text("no picture")
    return folder
