"""Thousands of pictures: listed once, known again at the next start, and never half remembered."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from tests.data.picture_folders import write_pictures
from trainer.config.schema import DataConfig
from trainer.data.loading import load
from trainer.data.pictures import file_states
from trainer.data.pictures.packed_names import PackedNames
from trainer.data.sources import picture_index, prepared_pictures, reading
from trainer.data.sources.source_data import SourceData

COUNT = 2000


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("many")
    root = write_pictures(place / "own", ("train",), count=COUNT // 2, size=(4, 4))
    for picture in root.rglob("*.png"):
        os.utime(picture, (1e9, 1e9))
    return root


def config_of(root: Path, **keys: Any) -> DataConfig:
    return DataConfig(name="folder", root=str(root), store_size=4, **keys)


def test_a_later_start_asks_for_no_file_again(
    root: Path, caches: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_states, "CLOCK_STEP_NS", 0)  # as if the files were older
    config = config_of(root)
    reading.prepare(config)
    first = load(config, 0)
    asked: list[Any] = []
    stat = os.stat

    def count(path: Any, *words: Any, **more: Any) -> os.stat_result:
        asked.append(path)
        return stat(path, *words, **more)

    with monkeypatch.context() as patch:
        patch.setattr(os, "stat", count)
        patch.setattr(picture_index, "_read", None)
        patch.setattr(prepared_pictures, "make_plan", None)
        reading.prepare(config)
        second = load(config, 0)
    assert second.fingerprint == first.fingerprint
    assert len(asked) < COUNT / 10


def test_what_is_known_is_in_columns(root: Path, caches: Path) -> None:
    config = config_of(root)
    reading.prepare(config)
    source: SourceData = reading.read(config)
    names = source.train.names
    assert isinstance(names, PackedNames)
    assert names.blob.nbytes < 30 * COUNT
    assert [names[0][:10], names[1][:10]] == ["train/cat/", "train/dog/"]
    size_bytes = sum(path.stat().st_size for path in (caches / "folder").rglob("*"))
    assert size_bytes < 300 * COUNT


def test_a_first_start_that_is_killed_keeps_what_it_has_read(
    tmp_path: Path, caches: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_states, "CLOCK_STEP_NS", 0)  # as if the files were older
    config = config_of(write_pictures(tmp_path / "own", ("train",), count=100, size=(4, 4)))
    child = os.fork()
    if child == 0:
        picture_index._WRITE_EVERY_S = 0.0
        put = picture_index._put

        def put_or_die(found: Any, position: int, row: Any) -> None:
            if position == 150:
                os._exit(9)
            put(found, position, row)

        picture_index._put = put_or_die
        reading.prepare(config)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    read = []
    read_one = picture_index._read

    def count(place: Any, *words: Any, **more: Any) -> Any:
        read.append(place)
        return read_one(place, *words, **more)

    monkeypatch.setattr(picture_index, "_read", count)
    reading.prepare(config)
    assert len(read) == 50
    found = load(config, 0).fingerprint
    monkeypatch.setenv("XDG_CACHE_HOME", str(caches / "fresh"))
    reading.prepare(config)
    assert load(config, 0).fingerprint == found


@pytest.mark.parametrize("keys", [{}, {"store_size": None}], ids=["stored", "decoded"])
def test_killed_at_any_moment_what_is_kept_is_whole_or_absent(
    tmp_path: Path, caches: Path, monkeypatch: pytest.MonkeyPatch, keys: dict[str, Any]
) -> None:
    """Kill the process before and after each file and folder that it puts in its place."""
    root = write_pictures(tmp_path / "own", ("train",))
    config = DataConfig(**{**vars(config_of(root)), **keys})
    deaths = 0
    while not _prepare_and_die(config, deaths):
        deaths += 1
    assert deaths >= 3
    found = load(config, 0).fingerprint
    assert not list((caches / "folder").rglob(".*"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(caches / "fresh"))
    reading.prepare(config)
    assert load(config, 0).fingerprint == found


def _prepare_and_die(config: DataConfig, after: int) -> bool:
    """Prepare and load in a process that dies after some calls of rename; return if it survived."""
    child = os.fork()
    if child == 0:
        calls = 0
        originals = {name: getattr(os, name) for name in ("rename", "replace")}

        def counted(name: str) -> Any:
            def call(*words: Any, **more: Any) -> None:
                nonlocal calls
                for is_done in (False, True):
                    if calls == after:
                        os._exit(9)
                    calls += 1
                    if not is_done:
                        originals[name](*words, **more)

            return call

        for name in originals:
            setattr(os, name, counted(name))
        reading.prepare(config)
        load(config, 0)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) in (0, 9)
    return status == 0
