"""Notes of pictures are those of the same pictures and keys: names say what they depend on."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import platform
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from trainer.config.schema import DataConfig
from trainer.data.pictures import formats
from trainer.data.sources import notes, picture_plan
from trainer.data.sources.download import cache_folder
from trainer.data.stored import entries


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("HOME", str(tmp_path))


def config_of(**keys: Any) -> DataConfig:
    return DataConfig(**{"name": "folder", "root": "/pictures", **keys})


def test_an_entry_is_named_by_its_root_wherever_that_is_looked_at_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    monkeypatch.chdir(tmp_path)
    digest = hashlib.sha256(os.fsencode(tmp_path.resolve() / "real")).hexdigest()[:16]
    for root in (tmp_path / "real", tmp_path / "link", Path("real")):
        assert entries.name_of("notes", root) == f"notes-{digest}"
        assert entries.name_of("stored", root, "more") == f"stored-{digest}-more"
    folder = cache_folder("folder")
    for named in ("real", "link", "~/real"):
        assert notes.entry_of(config_of(root=named)) == folder / f"notes-{digest}"
    unnamed = DataConfig(name="pets")
    assert notes.entry_of(unnamed) == folder / entries.name_of("notes", cache_folder("pets"))


INDEX_KEYS = {"name", "root", "max_megapixels"}
"""what decides on which pictures can be read, and what they contain"""
PLAN_KEYS = {
    *INDEX_KEYS, "image_size", "resize", "crop_share", "interpolation", "channels", "grey_range",
    "groups", "on_bad", "file_column", "label_column", "multi_label", "part_column",
    "group_column", "weight_column",
}  # fmt: skip
"""what decides on which of them are taken, and what they become"""


@pytest.mark.parametrize(
    ("file_of", "depends"),
    [
        (notes.index_of, INDEX_KEYS),
        (notes.plan_of, PLAN_KEYS),
    ],
)
def test_a_file_is_named_by_what_it_depends_on(
    file_of: Callable[[DataConfig, str | None], Path],
    depends: set[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An equal name for other keys would give a run the notes of another."""
    names = {file_of(config_of(), None).name}
    kind = "index" if file_of is notes.index_of else "plan"
    assert re.fullmatch(rf"{kind}-[0-9a-f]{{16}}\.npz", next(iter(names)))
    assert file_of(config_of(), None).parent == notes.entry_of(config_of())

    def is_other(file: Path) -> bool:
        """Whether the name is one that has not been before."""
        before = len(names)
        names.add(file.name)
        return len(names) > before

    for field in dataclasses.fields(DataConfig):
        other = "/others" if field.name == "root" else "another value"
        changed = dataclasses.replace(config_of(), **{field.name: other})
        assert is_other(file_of(changed, None)) is (field.name in depends), field.name
    assert is_other(file_of(config_of(root=None), None))
    assert is_other(file_of(config_of(), "test"))
    with monkeypatch.context() as patch:
        patch.setattr(notes, "FORMAT", picture_plan.FORMAT + 1)
        assert is_other(file_of(config_of(), None))
    with monkeypatch.context() as patch:
        patch.setattr(formats, "decoder_versions", lambda: ["another"])
        assert is_other(file_of(config_of(), None)) is (kind == "index")
    with monkeypatch.context() as patch:
        patch.setattr(platform, "node", lambda: "another")
        assert is_other(file_of(config_of(), None)) is (kind == "plan")
    assert not is_other(file_of(config_of(), None))


def test_of_each_kind_those_used_last_are_kept(tmp_path: Path) -> None:
    count = notes._MOST_OF_A_KIND
    for number in range(count + 2):
        for name in (f"plan-{number}.npz", f"plan-{number}.lock", f"index-{number}.npz"):
            (tmp_path / name).touch()
            os.utime(tmp_path / name, (number, number))
    (tmp_path / "plan-x.txt").touch()
    notes.note_use(tmp_path / "plan-0.npz")
    kept = {number for number in range(count + 2) if number not in (1, 2)}
    expected = {f"plan-{number}{end}" for number in kept for end in (".npz", ".lock")}
    expected |= {f"index-{number}.npz" for number in range(count + 2)} | {"plan-x.txt"}
    assert {path.name for path in tmp_path.iterdir()} == expected
    assert (tmp_path / "plan-0.npz").stat().st_mtime > 1e9
    (tmp_path / "plan-3.lock").unlink()
    (tmp_path / "plan-new.npz").touch()
    notes.note_use(tmp_path / "plan-gone.npz")
    assert not (tmp_path / "plan-3.npz").exists()
    assert (tmp_path / "plan-4.npz").exists()


def test_notes_of_another_user_stay_and_are_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    count = notes._MOST_OF_A_KIND
    for number in range(count + 2):
        (tmp_path / f"plan-{number}.npz").touch()
    (tmp_path / "plan-gone.npz").symlink_to("removed meanwhile")

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "utime", refuse)
    monkeypatch.setattr(Path, "unlink", refuse)
    notes.note_use(tmp_path / "plan-0.npz")
    assert len(list(tmp_path.iterdir())) == count + 3
