"""What another process reads of the pictures while torch is imported, and nobody waits for."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.data.picture_folders import write_pictures
from trainer.config.schema import DataConfig
from trainer.data.pictures import file_states
from trainer.data.sources import notes, picture_index, reading
from trainer.data.sources.head_start import look_into_pictures
from trainer.ranks import processes


@pytest.fixture(autouse=True)
def _has_two_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "usable_cores", lambda: 2)
    monkeypatch.setattr(file_states, "CLOCK_STEP_NS", 0)  # as if the files were older


@pytest.fixture
def children() -> set[int]:
    """Those of other tests, which come before."""
    return _children()


def _children() -> set[int]:
    return {child.pid for child in psutil.Process().children()}


def test_the_run_reads_no_picture_that_was_read_meanwhile(
    tmp_path: Path, caches: Path, children: set[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    root = write_pictures(tmp_path / "own", ("train",))
    config = DataConfig(name="folder", root=str(root), store_size=4)
    with look_into_pictures(config):
        deadline_s = time.monotonic() + 60
        while not notes.index_of(config).exists() and time.monotonic() < deadline_s:
            time.sleep(0.01)
    assert _children() <= children
    monkeypatch.setattr(picture_index, "_read", None)
    reading.prepare(config)
    assert len(reading.read(config).train.labels) == 16


def test_what_was_not_read_in_time_is_left_to_the_run(
    tmp_path: Path, caches: Path, children: set[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    root = write_pictures(tmp_path / "own", ("train",))
    config = DataConfig(name="folder", root=str(root), store_size=4)
    fifth, put = tmp_path / "fifth", picture_index._put

    def put_slowly(found: Any, position: int, row: Any) -> None:
        if position == 5:
            fifth.touch()
            time.sleep(60)
        put(found, position, row)

    with monkeypatch.context() as patch:
        patch.setattr(picture_index, "_put", put_slowly)
        with look_into_pictures(config):
            while not fifth.exists():
                time.sleep(0.01)
    assert _children() <= children
    assert int(picture_index.load_contents(notes.index_of(config)).is_picture.sum()) == 5
    reading.prepare(config)
    assert len(reading.read(config).train.labels) == 16


@pytest.mark.parametrize("root", ["nowhere", "https://nowhere.invalid/own.zip"])
def test_errors_are_left_to_the_run(
    tmp_path: Path, caches: Path, children: set[int], root: str, capfd: pytest.CaptureFixture[str]
) -> None:
    where = root if "://" in root else str(tmp_path / root)
    with look_into_pictures(DataConfig(name="folder", root=where)):
        time.sleep(0.2)
    assert _children() <= children
    assert capfd.readouterr() == ("", "")
    assert not caches.exists()
