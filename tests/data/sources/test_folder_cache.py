"""Pictures are decoded once, by one process of a machine, and never from a changed file."""

from __future__ import annotations

import errno
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from tests.data.picture_folders import prepared, write_pictures
from tests.distributed.forked_runs import start_code
from tests.runs import contents
from trainer.base.errors import UserError
from trainer.config.schema import DataConfig
from trainer.data import measurements
from trainer.data.pictures import decoding, file_states
from trainer.data.pictures.places import Place
from trainer.data.sources import decoded_cache, notes, picture_index, plan_file, reading


@pytest.fixture
def cache(caches: Path) -> Path:
    """The cache of folders."""
    return caches / "folder"


def entries(cache: Path) -> list[Path]:
    """Those of pixels."""
    return [path.parent for path in cache.glob("*/train.npy")]


def test_they_are_decoded_once(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = write_pictures(tmp_path / "own")
    monkeypatch.setattr(file_states, "CLOCK_STEP_NS", 0)  # as if they were older
    first = prepared(root)
    (entry,) = entries(cache)

    def fail(*_: Any) -> Any:
        raise AssertionError("read again")

    monkeypatch.setattr(picture_index, "_read", fail)
    monkeypatch.setattr(decoding, "decode", fail)
    # Nothing is written either: the disk may be full by now.
    monkeypatch.setattr(picture_index, "write_arrays", fail)
    monkeypatch.setattr(plan_file, "write_arrays", fail)
    assert prepared(root).fingerprint == first.fingerprint
    assert entries(cache) == [entry]


def test_notes_of_other_configurations_go_when_there_are_many(tmp_path: Path, cache: Path) -> None:
    """This process holds their entry, which therefore stays."""
    root = write_pictures(tmp_path / "own")
    first = prepared(root, image_size=4, store_size=8).fingerprint
    for size in range(5, 24):
        prepared(root, image_size=size, store_size=8)
        prepared(root, image_size=4, store_size=8)  # is used again and again
    (entry,) = cache.glob("notes-*")
    for kind in ("plan", "measured"):
        assert len(list(entry.glob(f"{kind}-*.npz"))) == notes._MOST_OF_A_KIND
    assert len(list(entry.iterdir())) < 3 * notes._MOST_OF_A_KIND + 5
    kept = plan_file.read(max(entry.glob("plan-*.npz"), key=lambda path: path.stat().st_mtime_ns))
    assert kept and kept.plan.target.image_size == (4, 4)
    assert prepared(root, image_size=5, store_size=8).train.images.shape[2:] == (5, 5)
    assert prepared(root, image_size=4, store_size=8).fingerprint == first


def test_pixels_are_measured_once_for_each_choice_of_them(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = write_pictures(tmp_path / "own", channels=3)
    first = prepared(root)
    other = prepared(root, validation_size=6)
    assert other.fingerprint != first.fingerprint
    with monkeypatch.context() as patch:
        patch.setattr(measurements, "_measure", None)
        second = prepared(root)
        assert second.fingerprint == first.fingerprint
        assert torch.equal(second.scaling.mean, first.scaling.mean)
        assert torch.equal(second.scaling.deviation, first.scaling.deviation)
        with pytest.raises(TypeError):
            prepared(root, scaling="per_pixel")
    for path in cache.rglob("measured-*.npz"):
        os.truncate(path, 100)
    assert prepared(root).fingerprint == first.fingerprint
    (entry,) = entries(cache)
    with (entry / "train.npy").open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"\0")
    assert prepared(root).fingerprint != first.fingerprint


def test_a_picture_that_changes_is_decoded_again(tmp_path: Path, cache: Path) -> None:
    root = write_pictures(tmp_path / "own")
    first = prepared(root)
    changed = root / "train" / "cat" / "000.png"
    status = changed.stat()
    black = Image.new("L", (10, 12))
    black.save(changed)
    # As if by the same tick of the clock.
    os.utime(changed, ns=(status.st_atime_ns, status.st_mtime_ns))
    second = prepared(root)
    assert second.fingerprint != first.fingerprint
    assert len(entries(cache)) == 2


def exchange(one: Path, other: Path) -> None:
    """As `mv` does it by way of a third name."""
    aside = one.with_name("aside")
    one.rename(aside)
    other.rename(one)
    aside.rename(other)


def rewrite_in_the_old_time(one: Path, other: Path) -> None:
    one.write_bytes(other.read_bytes())
    os.utime(one, (1e9, 1e9))


def link_to_another(one: Path, other: Path) -> None:
    one.unlink()
    one.symlink_to(other)


@pytest.mark.parametrize("change", [exchange, rewrite_in_the_old_time, link_to_another])
def test_other_pixels_of_the_same_size_and_time_are_seen(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, change: Any
) -> None:
    root = write_pictures(tmp_path / "own")
    for path in root.rglob("*.png"):  # uncompressed, and so of one size
        with Image.open(path) as picture:
            picture.save(path, format="BMP")
        os.utime(path, (1e9, 1e9))
    with monkeypatch.context() as patch:
        # As if the files were old: that they are new must not decide.
        patch.setattr(file_states, "CLOCK_STEP_NS", 0)
        prepared(root)
    change(root / "test" / "cat" / "003.png", root / "test" / "dog" / "003.png")
    found = prepared(root).fingerprint
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "fresh"))
    assert found == prepared(root).fingerprint


def test_a_disk_that_fails_once_costs_no_picture_for_ever(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = write_pictures(tmp_path / "own")
    monkeypatch.setattr(file_states, "CLOCK_STEP_NS", 0)  # as if they were older
    read = Place.read

    def fail(place: Place) -> bytes:
        if place.file.parts[-3:] == ("train", "cat", "003.png"):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return read(place)

    with monkeypatch.context() as patch:
        patch.setattr(Place, "read", fail)
        with pytest.raises(UserError, match=r"003.png: cannot be read \(Input/output error\)"):
            prepared(root)
    assert len(prepared(root, validation_size=0).train) == 20


def test_a_damaged_cache_is_made_again(tmp_path: Path, cache: Path) -> None:
    root = write_pictures(tmp_path / "own")
    first = prepared(root)
    (entry,) = entries(cache)
    os.truncate(entry / "train.npy", 200)
    next(cache.rglob("index-*.npz")).write_bytes(b"PK")
    assert prepared(root).fingerprint == first.fingerprint
    (entry / "entry.json").unlink()
    assert prepared(root).fingerprint == first.fingerprint
    assert entries(cache) == [entry]


def test_a_picture_that_changes_while_it_is_decoded_spoils_nothing(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = write_pictures(tmp_path / "own")
    read = decoding.decode

    def change(place: Place, *rest: Any, **keys: Any) -> Any:
        if place.file.name == "000.png":
            Image.new("L", (9, 9)).save(place.file)
        return read(place, *rest, **keys)

    monkeypatch.setattr(decoding, "decode", change)
    with pytest.raises(UserError, match=r"000\.png: was changed while it was read; start again"):
        prepared(root)
    assert entries(cache) == []


def test_the_other_processes_of_a_machine_read_the_plan_of_the_first(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = write_pictures(tmp_path / "own", ("train",))
    first = prepared(root)
    root.rename(tmp_path / "gone")
    monkeypatch.setenv("LOCAL_RANK", "1")
    other = prepared(root)
    assert other.fingerprint == first.fingerprint
    assert other.source == first.source
    with monkeypatch.context() as patch:
        patch.delenv("LOCAL_RANK")
        with pytest.raises(UserError, match="there is no folder"):
            prepared(root)
    with pytest.raises(UserError, match="are no longer decoded in"):
        prepared(root)


PREPARE = """
import sys
from trainer.config.schema import DataConfig
from trainer.data import loading
from trainer.data.sources import decoded_cache, reading
write = decoded_cache.write
def noted(*words, **more):
    print("decoded")
    return write(*words, **more)
decoded_cache.write = noted
config = DataConfig(name="folder", root=sys.argv[1])
reading.prepare(config)
print(loading.load(config, 0).fingerprint)
"""


def test_processes_that_start_together_decode_once(tmp_path: Path, cache: Path) -> None:
    root = write_pictures(tmp_path / "own", count=100, size=(60, 50))
    started = [start_code(tmp_path, PREPARE, str(root)) for _ in range(2)]
    outputs = [process.communicate() for process in started]
    assert [errors for _, errors in outputs] == [""] * 2
    words = [word for output, _ in outputs for word in output.split()]
    assert words.count("decoded") == 1
    assert len(set(words)) == 2
    assert len(entries(cache)) == 1


WITHOUT_LOCKS = """
import errno, fcntl, os
def flock(*_):
    raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))
fcntl.flock = flock
"""


def test_without_locks_each_process_decodes(tmp_path: Path, cache: Path) -> None:
    root = write_pictures(tmp_path / "own", count=100, size=(60, 50))
    started = [start_code(tmp_path, WITHOUT_LOCKS + PREPARE, str(root)) for _ in range(2)]
    outputs = [process.communicate() for process in started]
    assert all("cannot be locked here (No locks available)" in errors for _, errors in outputs)
    assert len({output.split()[-1] for output, _ in outputs}) == 1
    assert len(entries(cache)) == 1


def test_of_two_that_decode_at_once_one_wins(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = write_pictures(tmp_path / "own")
    first = prepared(root).fingerprint
    (entry,) = entries(cache)
    entry.rename(tmp_path / "of the other")
    write = decoded_cache.write

    def overtaken(entry: Path, *words: Any, check: Any, **more: Any) -> Any:
        def other_is_first() -> None:
            check()
            (tmp_path / "of the other").rename(entry)

        return write(entry, *words, check=other_is_first, **more)

    monkeypatch.setattr(decoded_cache, "write", overtaken)
    assert prepared(root).fingerprint == first
    assert entries(cache) == [entry]


def test_a_start_that_fails_leaves_another_run_its_plan(tmp_path: Path, cache: Path) -> None:
    root = write_pictures(tmp_path / "own")
    (root / "train" / "cat" / "005.png").write_bytes(b"no picture")
    config = DataConfig(name="folder", root=str(root), on_bad="skip")
    reading.prepare(config)
    with pytest.raises(UserError, match="1 of 40 pictures cannot be read"):
        reading.prepare(replace(config, on_bad="stop"))
    assert len(reading.read(config).train.labels) == 19


def test_leftovers_of_a_killed_process_are_removed(tmp_path: Path, cache: Path) -> None:
    root = write_pictures(tmp_path / "own")
    prepared(root)
    (entry,) = entries(cache)
    left = entry.with_name(f".{entry.name}.{os.uname().nodename}.1")
    entry.rename(left)
    prepared(root)
    assert entries(cache) == [entry]
    assert decoded_cache.load(entry)


def test_a_cache_that_cannot_be_written_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(UserError, match="set XDG_CACHE_HOME to another folder"):
        prepared(write_pictures(tmp_path / "own"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    elsewhere = tmp_path / "file" / "decoded"
    with pytest.raises(UserError, match=f"into {elsewhere} .*data.cache_dir to another folder"):
        prepared(tmp_path / "own", cache_dir=str(elsewhere))


def test_unprepared_pictures_are_described_without_decoding(tmp_path: Path, cache: Path) -> None:
    config = DataConfig(name="folder", root=str(write_pictures(tmp_path / "own")))
    words = reading.describe_undecoded(config)
    assert words is not None
    assert "not decoded yet: 20 in train, 20 in test" in words
    assert not cache.exists()
    reading.prepare(config)
    before = contents(cache)
    assert reading.describe_undecoded(config) is None
    assert contents(cache) == before
    assert reading.describe_undecoded(replace(config, image_size=[5, 5])) is not None
