"""The benchmark of photographs: that it runs, on few of them, and what its page says; no times."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy as np
import photo_files
import photo_million
import photos
import pytest
from photo_loaders import LOADERS
from PIL import Image


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes of five photographs."""
    folder = tmp_path_factory.mktemp("photos")
    generator = np.random.default_rng(0)
    for name in ("a", "b"):
        (folder / "train" / name).mkdir(parents=True)
        for number in range(5):
            pixels = generator.integers(0, 256, (50, 40 + number, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / "train" / name / f"{number}.jpg")
    return folder


@pytest.mark.usefixtures("forked", "forked_contenders")
@pytest.mark.parametrize(
    ("study", "contenders"),
    [("loaders", ["originals", "disk_cache"]), ("training", ["memory", "none"])],
)
def test_it_measures(
    root: Path,
    tmp_path: Path,
    study: str,
    contenders: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    output = tmp_path / "photos.json"
    words = ["--root", str(root), "--rounds", "2", "--workers", "1", "--output", str(output)]
    words += ["--image_size", "32", "--batch_size", "4", "--only", *contenders]
    monkeypatch.setattr(sys, "argv", ["photos.py", study, *words])
    photos.main()
    figures = json.loads(output.read_text())[study]
    assert figures["images"] == 10
    assert set(figures["seconds"]) == set(contenders)
    assert all(len(own) == 2 and min(own) > 0 for own in figures["seconds"].values())
    assert f"photos.py {study} --root DIR" in output.with_suffix(".md").read_text()


def test_the_page_has_the_ratios_within_a_round() -> None:
    seconds = {"originals": [1.0, 2.0], "disk_cache": [0.5, 1.0], "torchvision": [3.0, 6.0]}
    figures = {
        "images": 10, "image_size": 32, "batch_size": 4, "workers": 1, "left_out": ["timm"],
        "seconds": seconds, "versions": dict.fromkeys(seconds, "1.0"),
    }  # fmt: skip
    lines = photos.loaders_section(figures)
    (row,) = [line for line in lines if LOADERS["torchvision"].title in line]
    assert "3.000" in row and "6.000" in row
    assert any(LOADERS["timm"].title in line for line in lines)


def test_the_page_tells_memory_that_grows_from_memory_that_does_not() -> None:
    case = {"form": "files", "without_index_s": 60.0, "first_step_s": 9.5, "first_step_cpu_s": 8.0}
    case |= {"steps": 3000, "pss_mb": [700.0] * 4}
    flat = case | {"private_mb": [650.0, 660.0, 655.0, 655.0]}
    grows = case | {"private_mb": [600.0, 700.0, 800.0, 900.0]}
    lines = photo_million.section({"cases": [flat, grows], "seconds": 120.0, "processes": 2})
    assert lines[-2] == "| files | 60.0 s | 9.5 s | 8.0 s | 700 MB | 660 MB | +0 MB | 3,000 |"
    assert "| 900 MB | +200 MB |" in lines[-1]


def test_it_starts_on_many_small_pictures(tmp_path: Path) -> None:
    photo_files.write_files(tmp_path / "files", 300, 3, 32)
    found = photo_million.measure(argparse.Namespace(root=str(tmp_path), seconds=2.0))
    (case,) = found["cases"]
    assert case["form"] == "files" and case["steps"] > 0
    assert case["first_step_s"] > 0 and case["without_index_s"] > 0
    assert max(case["pss_mb"]) > max(case["private_mb"]) > 50
