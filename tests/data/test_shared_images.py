"""Processes of one machine have one copy of the images in memory, and the same images."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.distributed.launch import run_worker

COUNT = 14
"""photographs, two of them to test on"""

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="Linux's files in memory")


@pytest.mark.parametrize("kind", ["waits", "at once"])
def test_images_are_in_memory_once(kind: str, tmp_path: Path) -> None:
    first, second = load(kind, tmp_path)
    assert first["sha256"] == second["sha256"]
    assert first["classes"] == second["classes"] == 10
    # Each page is mapped by both, so half of it counts as each one's.
    for rank in (first, second):
        assert rank["shared_bytes"] > 1e5
        assert 0.45 <= rank["own_bytes"] / rank["shared_bytes"] <= 0.6


def test_who_waits_loads_nothing(tmp_path: Path) -> None:
    assert [rank["loads"] for rank in load("waits", tmp_path)] == [1, 0]
    assert [rank["loads"] for rank in load("at once", tmp_path)] == [1, 1]


def test_where_nothing_can_be_shared_each_has_its_own(tmp_path: Path) -> None:
    first, second = load("other machine", tmp_path)
    assert first["sha256"] == second["sha256"]
    assert second["shared_bytes"] == 0
    assert [first["loads"], second["loads"]] == [1, 1]


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root, random = tmp_path_factory.mktemp("photographs"), np.random.default_rng(0)
    for number in range(COUNT):
        folder = root / ("test" if number < 2 else "train") / f"class {number % 2}"
        folder.mkdir(parents=True, exist_ok=True)
        pixels = random.integers(0, 256, (8, 10, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((1000, 800)).save(folder / f"{number}.jpg")
    return root


def test_photographs_are_decoded_and_kept_once_for_each_machine(
    photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    task: dict[str, Any] = {"name": "keep photographs", "root": str(photographs)}
    kept_bytes = (COUNT - 2) * 800 * 1000 * 3
    for rank in run_worker(2, tmp_path / "here", **task, elsewhere=False):
        assert rank["decoded"] == (COUNT - 2) / 2
        assert rank["shared_bytes"] > 0.9 * kept_bytes
        assert rank["own_bytes"] < 0.6 * kept_bytes
        assert rank["private_bytes"] < 0.5 * kept_bytes
    elsewhere = run_worker(2, tmp_path / "elsewhere", **task, elsewhere=True)
    for rank in elsewhere:  # or the other one would take more than its share of the memory
        assert rank["decoded"] == COUNT - 2
        assert rank["private_bytes"] > 0.9 * kept_bytes
    assert len({rank["sha256"] for rank in elsewhere}) == 1


def test_features_are_kept_once_for_each_machine(tmp_path: Path) -> None:
    first, second = run_worker(2, tmp_path / "out", name="cache features")
    assert first["sha256"] == second["sha256"]
    for rank in (first, second):
        assert rank["shared_bytes"] >= rank["bytes"] > 3e5
        assert rank["own_bytes"] < 0.6 * rank["shared_bytes"]


def load(kind: str, folder: Path) -> Any:
    return run_worker(2, folder / "out", name="load once", kind=kind)
