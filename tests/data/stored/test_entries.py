"""Entries of the cache that other processes change or remove while this one looks at them."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from tests.data.archives import picture, write_tar
from trainer.data.pictures import file_states
from trainer.data.sources import named_pictures
from trainer.data.sources.download import cache_folder
from trainer.data.stored import entries


def test_a_file_that_vanishes_counts_nothing(tmp_path: Path) -> None:
    (tmp_path / "kept").write_bytes(bytes(100_000))
    size_bytes = entries.size_of(tmp_path)
    (tmp_path / ".half-written").symlink_to(tmp_path / "renamed")
    assert entries.size_of(tmp_path) == size_bytes >= 100_000


def test_two_processes_that_remove_an_entry(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = tmp_path / "entry"
    entry.mkdir()

    def is_late(_: int) -> bool:
        shutil.rmtree(entry)
        return True

    monkeypatch.setattr(entries, "_can_lock", is_late)
    assert entries.remove(entry)
    assert not any(tmp_path.iterdir())


def test_an_archive_in_a_folder_whose_name_is_not_text(
    tmp_path: Path, caches: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_states, "CLOCK_STEP_NS", 0)  # as if it were older
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/of \xff"))
    folder.mkdir()
    packed = write_tar(folder / "own.tar", [("a.png", picture(0))])
    (found,) = named_pictures.list_named([str(packed)], skip=False)
    assert found.read() == picture(0)
    (entry,) = entries.list_entries(cache_folder("folder"))
    assert entry.path.is_relative_to(caches)
    assert entry.about.startswith(f"{tmp_path}/of \N{REPLACEMENT CHARACTER}")
