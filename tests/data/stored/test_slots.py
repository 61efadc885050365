"""Pictures that are kept on the disk: whole or absent, whatever happened to the file."""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.data.stored.known import open_pictures, write_photographs
from tests.distributed.forked_runs import start_code
from trainer.base.errors import UserError
from trainer.config.schema import DataConfig
from trainer.data.stored import entries, keeping
from trainer.data.stored.slots import INDEX, SLOTS, Slots, check, open_slots

COUNT = 6


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_photographs(tmp_path / "own", COUNT)
    return tmp_path / "own"


def entry_of(root: Path) -> Path:
    (entry,) = Path(f"{root}-cache").iterdir()
    return entry


@pytest.mark.parametrize("damage", ["bytes", "cut", "emptied", "index", "index cut"])
def test_what_was_damaged_is_decoded_again(root: Path, damage: str) -> None:
    expected = open_pictures(root, cache="disk")[0:COUNT]
    slots, index = entry_of(root) / SLOTS, entry_of(root) / INDEX
    content = bytearray(slots.read_bytes())
    if damage == "bytes":
        content[len(content) // 3] ^= 1
        slots.write_bytes(content)
    elif damage == "cut":
        slots.write_bytes(content[: len(content) // 2])
    elif damage == "emptied":
        slots.write_bytes(b"")
    elif damage == "index":
        index.unlink()
    else:
        index.write_bytes(index.read_bytes()[:-8])
    for _ in range(2):
        assert torch.equal(open_pictures(root, cache="disk")[0:COUNT], expected)
    assert slots.stat().st_size >= len(content)


def test_a_slot_belongs_to_its_picture_only(tmp_path: Path) -> None:
    """If an index were exchanged, a slot would have another picture's bytes, and a sum of them."""
    sha256, most_bytes = np.eye(2, 32, dtype=np.uint8), np.array([5, 5])
    slots = open_slots(tmp_path, sha256, most_bytes)
    slots.write(0, np.arange(5, dtype=np.uint8))
    rows = np.load(tmp_path / INDEX)
    rows["sha256"] = rows["sha256"][::-1].copy()
    np.save(tmp_path / INDEX, np.sort(rows, order="sha256"))
    again = open_slots(tmp_path, sha256, most_bytes)
    assert again.read(0) is None
    assert again.read(1) is None


@contextlib.contextmanager
def file_limit(size_bytes: int) -> Iterator[None]:
    """Let no file of this process grow beyond a size, as on a full disk."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.mark.parametrize("cache", ["auto", "disk"])
def test_a_disk_that_gets_full_costs_no_bit(
    root: Path, cache: str, caplog: pytest.LogCaptureFixture
) -> None:
    expected = open_pictures(root, cache="none")[0:COUNT]
    pictures = open_pictures(root, cache=cache, memory_limit_mb=0)
    assert pictures.store.choice.kind == "disk"
    pictures.store.pixels(0)
    with file_limit(1):
        for _ in range(2):
            assert torch.equal(pictures[0:COUNT], expected)
    assert caplog.text.count("cannot be written (File too large)") == 1
    assert check(entry_of(root)) == {"pictures": COUNT, "kept": 1, "damaged": 0}


def test_a_cache_that_cannot_be_read_any_more_costs_no_bit(
    root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pictures = open_pictures(root, cache="disk")
    expected = pictures[0:COUNT]
    folder = os.open(root, os.O_RDONLY)
    os.dup2(folder, pictures.store._keeper._descriptor)  # type: ignore[attr-defined]
    os.close(folder)
    for _ in range(2):
        assert torch.equal(pictures[0:COUNT], expected)
    assert caplog.text.count("cannot be read (Is a directory)") == 1


def test_where_no_file_can_be_made_auto_goes_without_and_disk_is_refused(root: Path) -> None:
    Path(f"{root}-cache").write_text("a file where the folder would be")
    pictures = open_pictures(root, cache="auto", memory_limit_mb=0)
    assert pictures.store.choice.kind == "none"
    assert "cannot be written" in pictures.store.choice.describe()
    with pytest.raises(UserError, match=r"data\.cache: .* cannot be written"):
        open_pictures(root, cache="disk")


def test_what_is_kept_already_needs_no_more_room(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When a cache is filled, the disk has less room than it had; the choice stays."""
    pictures = open_pictures(root, cache="disk")
    assert len(pictures[0:COUNT]) == COUNT
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**9, 10**9, 0))
    monkeypatch.setattr(keeping, "_FREE_SHARE", 1.0)
    kept = open_pictures(root, cache="auto", memory_limit_mb=0)
    assert kept.store.choice.kind == "disk"


def test_only_the_pictures_that_a_run_uses_decide_on_where_they_are_kept(root: Path) -> None:
    def choose(**keys: Any) -> str:
        limited = open_pictures(root, cache_limit_gb=8e-6, memory_limit_mb=0, **keys)
        return limited.store.choice.kind

    assert choose() == "none"
    assert choose(train_size=1) == "disk"
    assert choose(train_size=1, store_format="jpeg") == "disk"


FILLING = """
import sys
from pathlib import Path
from tests.data.stored.known import open_pictures
pictures = open_pictures(Path(sys.argv[1]), cache="disk")
print("open", flush=True)
while True:
    for number in range(len(pictures)):
        pictures.store.pixels(number)
    for number in range(len(pictures)):
        pictures.store._keeper._lengths[number] = 0
        stored = pictures.store._make(number, tuple(pictures.store.sizes[number].tolist()))
"""


def test_a_process_may_be_killed_while_others_read_what_it_writes(
    root: Path, tmp_path: Path
) -> None:
    expected = open_pictures(root, cache="none")[0:COUNT]
    for _ in range(2):
        process = start_code(tmp_path, FILLING, str(root))
        process.wait_for_output("open\n")
        for _ in range(20):
            assert torch.equal(open_pictures(root, cache="disk")[0:COUNT], expected)
        process.kill()
        process.wait()
        assert torch.equal(open_pictures(root, cache="disk")[0:COUNT], expected)


def test_the_oldest_entries_go_and_those_in_use_stay(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    names = [f"{number:032x}" for number in range(4)]
    for age, name in enumerate(names):
        (cache / name).mkdir(parents=True)
        (cache / name / "train.npy").write_bytes(bytes(100_000))
        if age == 0:
            entries.hold(cache / name)
        os.utime(cache / name, (1e9 + age, 1e9 + age))
    (cache / "plan-0.npz").write_bytes(bytes(1000))
    removed = entries.prune(cache, 250_000)
    assert [entry.path.name for entry in removed] == names[1:3]
    assert [entry.path.name for entry in entries.list_entries(cache)] == [names[0], names[3]]
    assert [entry.is_held for entry in entries.list_entries(cache)] == [True, False]
    assert (cache / "plan-0.npz").exists()


def test_the_entries_of_another_user_stay_and_are_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    if os.geteuid() != 0:
        pytest.skip("only root can be another user for a moment")
    with tempfile.TemporaryDirectory() as place:
        cache = Path(place) / "cache"
        for number in range(2):
            (cache / f"{number:032x}").mkdir(parents=True)
            (cache / f"{number:032x}" / "train.npy").write_bytes(bytes(100_000))
        (cache / f"{1:032x}").chmod(0o700)
        for path in (Path(place), cache):
            path.chmod(0o777)
        entries.keep_within_limit(DataConfig())  # imports what another user may not read
        child = os.fork()
        if child == 0:
            failed = True
            with contextlib.suppress(Exception):
                os.setuid(65534)
                kept = [entry.path.name for entry in entries.list_entries(cache)]
                entries.use(cache / f"{0:032x}", "theirs too")
                failed = kept != [f"{0:032x}"] or entries.prune(cache, 0) != []
            os._exit(failed)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert len(entries.list_entries(cache)) == 2


def test_slots_take_no_more_than_the_limit(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    expected = open_pictures(root, cache="none")[0:COUNT]
    for _ in range(2):
        pictures = open_pictures(root, cache="disk", cache_limit_gb=40e-6)
        assert torch.equal(pictures[0:COUNT], expected)
    kept = check(entry_of(root))["kept"]
    assert 0 < kept < COUNT
    assert (entry_of(root) / SLOTS).stat().st_blocks * 512 <= 40_000
    assert "by data.cache_limit_gb: pictures that are not in this cache yet" in caplog.text


def test_what_is_kept_in_memory_becomes_tensors_without_a_warning(tmp_path: Path) -> None:
    file = tmp_path / "slots"
    file.write_bytes(bytes(1000))
    sha256 = np.eye(1, 32, dtype=np.uint8)
    slots = Slots(file, sha256, np.array([0]), np.array([100]), in_memory=True)
    content = np.arange(100, dtype=np.uint8)
    slots.write(0, content)
    with warnings.catch_warnings(action="error"):
        stored = slots.read(0)
        assert stored is not None
        assert torch.from_numpy(stored).numpy().tolist() == content.tolist()


def test_the_limit_counts_whole_blocks_of_the_disk(tmp_path: Path) -> None:
    sha256 = np.eye(4, 32, dtype=np.uint8)
    for limit_bytes in range(9_000, 45_000, 1_000):
        entry = tmp_path / str(limit_bytes)
        entry.mkdir()
        slots = open_slots(entry, sha256, np.full(4, 10_000), limit_bytes)
        for number in range(4):
            slots.write(number, np.full(10_000, 1, np.uint8))
        assert (entry / SLOTS).stat().st_blocks * 512 <= limit_bytes


def test_slots_of_pictures_that_are_gone_are_given_back(tmp_path: Path) -> None:
    sha256 = np.random.default_rng(0).integers(0, 256, (5, 32), dtype=np.uint8)
    stored = [np.full(10_000, number, np.uint8) for number in range(5)]
    most_bytes = np.full(5, 10_000)
    before = open_slots(tmp_path, sha256, most_bytes)
    for number, content in enumerate(stored):
        before.write(number, content)
    open_slots(tmp_path, sha256[:3], most_bytes[:3], is_whole=True)
    assert (tmp_path / SLOTS).stat().st_size > 50_000  # it is not worth while yet
    open_slots(tmp_path, sha256[3:], most_bytes[3:])
    after = open_slots(tmp_path, sha256[3:], most_bytes[3:], is_whole=True)
    assert (tmp_path / SLOTS).stat().st_size < 21_000
    for number in (3, 4):
        assert np.array_equal(after.read(number - 3), stored[number])
        assert np.array_equal(before.read(number), stored[number])


HOLDING = """
import sys, time
from pathlib import Path
from trainer.data.stored import entries
entries.hold(Path(sys.argv[1]))
print("held", flush=True)
time.sleep(600)
"""


def test_an_entry_is_held_until_its_process_ends_however_it_ends(tmp_path: Path) -> None:
    entry = tmp_path / f"{0:032x}"
    entry.mkdir()
    process = start_code(tmp_path, HOLDING, str(entry))
    process.wait_for_output("held\n")
    assert not entries.remove(entry)
    process.kill()
    process.wait()
    assert entries.remove(entry)
    assert not entry.exists()


def test_what_killed_processes_have_left_goes(root: Path) -> None:
    expected = open_pictures(root, cache="disk")[0:COUNT]
    cache = Path(f"{root}-cache")
    at_once = entry_of(root) / f".{Path(INDEX).stem}.999999.npy"
    at_once.write_bytes(b"half")
    notes, images = cache / f"notes-{'0' * 16}", cache / f".{'0' * 32}.host.999999"
    notes.mkdir()
    images.mkdir()
    half, new, users = notes / ".plan-0.1.npz", notes / ".plan-0.2.npz", cache / ".own.1.txt"
    for path in (half, new, users):
        path.write_bytes(b"half")
    for path in (half, users, images):
        os.utime(path, (0, 0))
    assert torch.equal(open_pictures(root, cache="disk")[0:COUNT], expected)
    assert not at_once.exists() and not half.exists() and not images.exists()
    assert new.exists(), "it may be somebody's work"
    assert users.exists(), "it is not of this cache"
