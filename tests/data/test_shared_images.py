"""Processes of one machine have one copy of the images in memory, and the same images."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from tests.distributed.launch import run_worker

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


def load(kind: str, folder: Path) -> Any:
    return run_worker(2, folder / "out", name="load once", kind=kind)
