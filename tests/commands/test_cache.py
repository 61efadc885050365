"""The cache of decoded pictures is listed, checked and pruned."""

from __future__ import annotations

import json
import os
import tarfile
from pathlib import Path

import pytest

from tests.commands.command import Capture, run_command
from tests.data.picture_folders import prepared, write_pictures
from tests.data.stored.known import open_pictures, write_photographs
from trainer.data.stored.slots import SLOTS


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    write_photographs(tmp_path / "own", 5)
    for size in (20, 30):
        open_pictures(tmp_path / "own", cache="disk", store_size=size)[0:4]
    return tmp_path / "own-cache"


def test_entries_are_listed_and_checked(cache: Path, tmp_path: Path, capsys: Capture) -> None:
    large = max(cache.iterdir(), key=lambda entry: (entry / SLOTS).stat().st_size)
    content = bytearray((large / SLOTS).read_bytes())
    content[100] ^= 1  # in the first slot, as heads are short
    (large / SLOTS).write_bytes(content)
    code, output, _ = run_command(capsys, "cache", "--cache_dir", cache, "--check", "--json")
    assert code == 0
    found = json.loads(output)
    assert found["folder"] == str(cache)
    assert found["size_bytes"] == sum(entry["size_bytes"] for entry in found["entries"]) > 0
    assert {entry["in_use"] for entry in found["entries"]} == {True}  # by this process
    checks = {entry["name"]: entry["check"] for entry in found["entries"]}
    kept = checks.pop(large.name)
    assert checks.popitem()[1] == {"pictures": 5, "kept": 4, "damaged": 0}
    assert kept["damaged"] + kept["kept"] == 4
    code, output, _ = run_command(capsys, "cache", "--cache_dir", cache)
    assert code == 0
    assert output.count("in use") == 2
    assert f"{tmp_path / 'own'}: pixels of a shorter side of 30 pixels at the most" in output


def test_what_nobody_uses_is_removed(tmp_path: Path, capsys: Capture) -> None:
    for age in (1, 2):
        entry = tmp_path / f"{age:032x}"
        entry.mkdir()
        (entry / "train.npy").write_bytes(bytes(200_000))
        os.utime(entry, (age, age))
    code, output, _ = run_command(capsys, "cache", "--cache_dir", tmp_path, "--prune", "0.0003")
    assert code == 0
    assert f"removed {1:032x}" in output
    assert [path.name for path in tmp_path.iterdir()] == [f"{2:032x}"]
    assert run_command(capsys, "cache", "--cache_dir", tmp_path, "--prune", "0")[0] == 0
    assert not list(tmp_path.iterdir())


def test_a_cache_that_is_not_there_is_empty(tmp_path: Path, capsys: Capture) -> None:
    code, output, _ = run_command(capsys, "cache", "--cache_dir", tmp_path / "none")
    assert (code, output) == (0, f"cache   {tmp_path / 'none'}, 0.00 GB\n")
    code, _, errors = run_command(capsys, "cache", "--prune", "all")
    assert code == 2
    assert "'all' is not a number of GB" in errors


def test_copies_and_notes_are_listed_and_damaged_images_are_found(
    tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    write_pictures(tmp_path / "own")
    with tarfile.open(tmp_path / "own.tar.gz", "w:gz") as archive:
        archive.add(tmp_path / "own", "own")
    prepared(tmp_path / "own.tar.gz")
    (pixels,) = (tmp_path / "cache").rglob("train.npy")
    for is_whole in (True, False):
        code, output, _ = run_command(capsys, "cache", "--check", "--json")
        assert code == 0
        found = {entry["kind"]: entry for entry in json.loads(output)["entries"]}
        assert set(found) == {"images", "notes", "archives"}
        assert all(entry["in_use"] and entry["size_bytes"] > 0 for entry in found.values())
        assert found["images"]["check"] == {"whole": is_whole, "removed": False}  # it is in use
        assert found["images"]["of"].startswith(f"{tmp_path / 'own.tar.gz'}: images of 12 x 10")
        content = bytearray(pixels.read_bytes())
        content[-1] ^= 1
        pixels.write_bytes(content)
