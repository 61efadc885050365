"""Whole runs on images that stay in their file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.runs import Run, check_same, train_here
from trainer.data.sources import digits


@pytest.fixture
def npy_digits(tmp_path: Path) -> list[str]:
    """Words of a short run on the digits in `.npy` files."""
    folder = tmp_path / "data"
    folder.mkdir()
    source = digits.read()
    for part, content in (("train", source.train), ("test", source.test)):
        np.save(folder / f"digits_{part}_features.npy", np.asarray(content.images)[:, 0])
        np.save(folder / f"digits_{part}_targets.npy", content.labels)
    return ["--data.name", "npy", "--data.root", str(folder), "--train.epochs", "2"]


@pytest.mark.usefixtures("report")
def test_a_run_has_the_same_bits_whether_its_images_are_in_memory_or_on_the_disk(
    tmp_path: Path, npy_digits: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    runs = []
    for limit in ("1000", "0"):
        folder = tmp_path / limit
        exit_code = train_here(folder, *npy_digits, "--data.memory_limit_mb", limit)
        runs.append(Run(folder, exit_code, errors=capsys.readouterr().err))
    resident, on_disk = runs
    check_same(on_disk, resident)
    results = [run.json("results.json") for run in runs]
    assert results[0]["data"] == results[1]["data"]
    assert results[0]["test"] == results[1]["test"]
    for picture in ("mistakes.png", "confusion.png"):
        assert (on_disk.folder / picture).read_bytes() == (resident.folder / picture).read_bytes()
    assert (on_disk.folder / "report.html").exists()


def test_a_run_goes_on_with_its_images_elsewhere(
    tmp_path: Path, npy_digits: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert train_here(tmp_path / "run", *npy_digits, "--data.memory_limit_mb", "0") == 0
    assert train_here(tmp_path / "run", *npy_digits) == 0
    assert "nothing is left to do" in capsys.readouterr().out
