"""Pictures that are kept on the disk: whole or absent, whatever happened to the file."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.conftest import REPOSITORY
from tests.data.stored.known import open_pictures, write_photographs
from trainer.data.stored import entries
from trainer.data.stored.slots import INDEX, SLOTS, open_slots

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


def test_a_process_may_be_killed_while_others_read_what_it_writes(root: Path) -> None:
    expected = open_pictures(root, cache="none")[0:COUNT]
    for _ in range(2):
        process = subprocess.Popen(
            [sys.executable, "-c", FILLING, str(root)], cwd=REPOSITORY, stdout=subprocess.PIPE
        )
        with process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"open\n"
            for _ in range(20):
                assert torch.equal(open_pictures(root, cache="disk")[0:COUNT], expected)
            process.kill()
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
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDING, str(entry)], cwd=REPOSITORY, stdout=subprocess.PIPE
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        assert not entries.remove(entry)
        process.kill()
    assert entries.remove(entry)
    assert not entry.exists()
