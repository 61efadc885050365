"""The bytes of slots: what was written is read, in whole or in part, and nothing else is."""

from __future__ import annotations

import contextlib
import gc
import itertools
import os
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from trainer.data.stored import slots as module
from trainer.data.stored.slots import INDEX, SLOTS, Slots, check, open_slots

SHA256 = np.random.default_rng(0).integers(1, 256, (4, 32), dtype=np.uint8)
MOST_BYTES = np.array([9, 20, 1, 30])
STORED = [np.arange(9, dtype=np.uint8), np.full(15, 7, np.uint8), np.array([5], np.uint8)]
"""of the first three: as long as may be, shorter, and of one byte"""


def filled(entry: Path) -> Slots:
    """The slots of four pictures, of which three have been written."""
    entry.mkdir(exist_ok=True)
    slots = open_slots(entry, SHA256, MOST_BYTES)
    for number, stored in enumerate(STORED):
        slots.write(number, stored)
    return slots


def read_all(slots: Slots) -> list[list[int] | None]:
    found = [slots.read(number) for number in range(len(slots.most_bytes))]
    return [None if one is None else one.tolist() for one in found]


EXPECTED = [*(stored.tolist() for stored in STORED), None]


def test_what_was_written_is_read_by_whoever_opens_the_file(tmp_path: Path) -> None:
    slots = filled(tmp_path)
    assert slots.path == tmp_path / SLOTS
    again = open_slots(tmp_path, SHA256, MOST_BYTES)
    reverse = open_slots(tmp_path, SHA256[::-1], MOST_BYTES[::-1])
    for _ in range(2):  # checked, and then known to be whole
        assert read_all(slots) == EXPECTED
        assert read_all(again) == EXPECTED
        assert read_all(reverse) == EXPECTED[::-1]
    assert [slots.is_empty(number) for number in range(4)] == [False, False, False, True]
    assert check(tmp_path) == {"pictures": 4, "kept": 3, "damaged": 0}


def test_pictures_that_come_later_get_slots_behind_the_others(tmp_path: Path) -> None:
    order = sorted(range(4), key=lambda number: SHA256[number].tobytes())
    sha256, most_bytes = SHA256[order], MOST_BYTES[order]
    before = open_slots(tmp_path, sha256[:1], most_bytes[:1])
    before.write(0, np.ones(1, np.uint8))
    slots = open_slots(tmp_path, sha256, most_bytes)
    assert slots.most_bytes.tolist() == most_bytes.tolist()
    assert slots.offset_bytes[0] == before.offset_bytes[0]
    bounds = sorted(zip(slots.offset_bytes.tolist(), most_bytes.tolist(), strict=True))
    for (begin, most), (following, _) in itertools.pairwise(bounds):
        assert begin + 8 + most == following
    assert check(tmp_path) == {"pictures": 4, "kept": 1, "damaged": 0}
    index = (tmp_path / INDEX).stat()
    open_slots(tmp_path, sha256, most_bytes)
    assert (tmp_path / INDEX).stat().st_ino == index.st_ino, "nothing is written again"


def test_a_slot_as_it_is_in_the_file(tmp_path: Path) -> None:
    """Number of bytes and checksum of the SHA-256 and the bytes, little-endian; then the bytes."""
    slots = filled(tmp_path)
    content = (tmp_path / SLOTS).read_bytes()
    for number, stored in enumerate(STORED):
        begin = int(slots.offset_bytes[number])
        checksum = zlib.crc32(SHA256[number].tobytes() + stored.tobytes())
        head = len(stored).to_bytes(4, "little") + checksum.to_bytes(4, "little")
        assert content[begin : begin + 8 + len(stored)] == head + stored.tobytes()


@pytest.mark.parametrize(("begin", "end"), [(0, None), (2, 5), (3, None), (0, 9), (4, 4)])
def test_a_part_is_read_as_well(begin: int, end: int | None, tmp_path: Path) -> None:
    filled(tmp_path)
    slots = open_slots(tmp_path, SHA256, MOST_BYTES)
    in_memory = Slots(
        tmp_path / SLOTS, SHA256, slots.offset_bytes, slots.most_bytes, in_memory=True
    )
    for _ in range(2):
        for one in (slots, in_memory):
            found = one.read(0, begin, end)
            assert found is not None
            assert found.tolist() == STORED[0][begin:end].tolist()
            assert one.read(3, begin, end) is None


def test_a_slot_is_empty_whatever_the_next_one_has(tmp_path: Path) -> None:
    slots = open_slots(tmp_path, SHA256[:2], np.array([1, 1]))
    slots.write(int(np.argmax(slots.offset_bytes)), STORED[2])
    assert check(tmp_path) == {"pictures": 2, "kept": 1, "damaged": 0}


def test_short_reads_and_writes_are_gone_on_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    preadv, pwrite = os.preadv, os.pwrite

    def read_little(descriptor: int, buffers: Sequence[Any], begin: int) -> int:
        return preadv(descriptor, [buffers[0][:3]], begin)

    monkeypatch.setattr(os, "preadv", read_little)
    monkeypatch.setattr(
        os, "pwrite", lambda descriptor, content, begin: pwrite(descriptor, content[:3], begin)
    )
    assert read_all(filled(tmp_path)) == EXPECTED
    assert read_all(open_slots(tmp_path, SHA256, MOST_BYTES)) == EXPECTED


def write_head(slots: Slots, number: int, length: int) -> None:
    """Claim that a slot has so many bytes, with a checksum that fits what is there."""
    begin = int(slots.offset_bytes[number])
    with slots.path.open("r+b") as file:
        file.seek(begin + 8)
        checksum = zlib.crc32(SHA256[number].tobytes() + file.read(length))
        file.seek(begin)
        file.write(length.to_bytes(4, "little") + checksum.to_bytes(4, "little"))


def test_what_cannot_be_is_no_picture(tmp_path: Path) -> None:
    slots = filled(tmp_path)
    write_head(slots, 3, 31)  # longer than its slot
    write_head(slots, 2, 0)
    write_head(slots, 0, 8)  # may be: a shorter one
    again = open_slots(tmp_path, SHA256, MOST_BYTES)
    assert read_all(again) == [list(range(8)), EXPECTED[1], None, None]
    assert check(tmp_path) == {"pictures": 4, "kept": 2, "damaged": 2}
    with slots.path.open("r+b") as file:
        file.seek(int(slots.offset_bytes[1]) + 8 + 14)
        file.write(b"\0")
    assert check(tmp_path) == {"pictures": 4, "kept": 1, "damaged": 3}


def test_a_file_that_is_shorter_than_its_index_says_is_no_error(tmp_path: Path) -> None:
    slots = filled(tmp_path)
    last = int(np.argmax(slots.offset_bytes[:3]))
    os.truncate(slots.path, int(slots.offset_bytes[last]) + 8)
    assert slots.read(last) is None, "though it was whole when it was written"
    again = Slots(slots.path, SHA256, slots.offset_bytes, slots.most_bytes)
    assert again.read(last) is None
    os.truncate(slots.path, int(slots.offset_bytes[last]) + 7)
    assert again.read(last) is None


def test_nothing_is_written_beyond_a_slot(tmp_path: Path) -> None:
    slots = filled(tmp_path)
    for stored in (np.zeros(10, np.uint8), np.zeros(0, np.uint8)):
        with pytest.raises(AssertionError):
            slots.write(0, stored)
    assert read_all(slots) == EXPECTED


def test_the_limit_is_of_whole_blocks(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Two pictures of three blocks each, the second of which would need one more."""
    filled(tmp_path)
    block = (tmp_path / SLOTS).stat().st_blksize
    sizes = np.array([3 * block - 8, 1])
    for limit_blocks, kept in ((2.9, 0), (3, 1), (3.9, 1), (4, 2)):
        entry = tmp_path / str(limit_blocks)
        entry.mkdir()
        names = np.sort(SHA256[:2], axis=0)
        slots = open_slots(entry, names, sizes, limit_blocks * block)
        assert slots.limit_bytes == limit_blocks * block
        slots.write(0, np.ones(sizes[0], np.uint8))
        slots.write(1, np.ones(1, np.uint8))
        assert check(entry)["kept"] == kept
        assert len([text for text in caplog.messages if str(slots.path) in text]) == (kept < 2)
    caplog.clear()
    slots = open_slots(tmp_path, SHA256, MOST_BYTES, 1e18)
    assert slots._has_room(0, 10**17)
    assert not slots._has_room(0, 2 * 10**18)
    assert caplog.messages == [
        f"{slots.path}: the cache has the 1,000,000,000.00 GB that it may have here by "
        "data.cache_limit_gb: pictures that are not in this cache yet are decoded each time "
        "they are needed; data.cache_dir names a folder elsewhere"
    ]


def test_a_slot_takes_each_block_in_which_it_has_bytes(tmp_path: Path) -> None:
    """Of a file in which nothing was written."""
    slots = open_slots(tmp_path, SHA256, MOST_BYTES)
    block = slots.path.stat().st_blksize
    for start, end, blocks in (
        (block // 2, block + 1, 2),
        (0, block, 1),
        (block - 1, 3 * block, 3),
    ):
        slots.limit_bytes = blocks * block
        assert slots._has_room(start, end)
        slots.limit_bytes -= 1
        assert not slots._has_room(start, end)


def count_open() -> int:
    """How many files this process has open."""
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def test_a_file_is_closed_with_its_slots(tmp_path: Path) -> None:
    filled(tmp_path)
    before = count_open()
    for in_memory in (False, True):
        slots = open_slots(tmp_path, SHA256, MOST_BYTES)
        more = Slots(slots.path, SHA256, slots.offset_bytes, slots.most_bytes, in_memory=in_memory)
        assert more.read(0) is not None
        assert count_open() > before + 1
        del slots, more
        gc.collect()
        assert count_open() == before


def test_what_fails_is_said_once_and_nothing_more_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    slots = filled(tmp_path)

    def fail(*_: Any) -> int:
        raise OSError("odd")

    advice = (
        "pictures that are not in this cache yet are decoded each time they are needed; "
        "data.cache_dir names a folder elsewhere"
    )
    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", fail)
        for _ in range(2):
            slots.write(3, np.ones(3, np.uint8))
    assert caplog.messages == [f"{slots.path}: cannot be written (odd): {advice}"]
    slots.write(3, np.ones(3, np.uint8))
    assert slots.read(3) is None, "not even where it would work again"
    caplog.clear()
    in_memory = Slots(slots.path, SHA256, slots.offset_bytes, slots.most_bytes, in_memory=True)
    again = Slots(slots.path, SHA256, slots.offset_bytes, slots.most_bytes)
    with monkeypatch.context() as patch:
        patch.setattr(os, "preadv", fail)
        for one in (again, again, in_memory):
            assert one.read(0) is None
    assert caplog.messages == [f"{slots.path}: cannot be read (odd): {advice}"]


def test_slots_are_added_under_a_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    @contextlib.contextmanager
    def lock(*words: Any) -> Iterator[bool]:
        asked.append(words)
        yield False

    leftover = tmp_path / f".{Path(INDEX).stem}.99.npy"
    leftover.touch()
    monkeypatch.setattr(module, "lock_file", lock)
    filled(tmp_path)
    assert asked == [
        (
            tmp_path / "lock",
            "adds pictures to this cache",
            "processes that start together may write into each other's slots, and decode again",
        )
    ]
    assert leftover.exists(), "it may be somebody's work, where nobody is kept away"
    monkeypatch.undo()
    open_slots(tmp_path, SHA256, MOST_BYTES)
    assert not leftover.exists()


def test_needless_slots_go_only_where_the_pictures_are_all_that_there_are(tmp_path: Path) -> None:
    filled(tmp_path)
    before = (tmp_path / SLOTS).stat()
    open_slots(tmp_path, SHA256[:1], MOST_BYTES[:1])
    assert (tmp_path / SLOTS).stat().st_ino == before.st_ino
    slots = open_slots(tmp_path, SHA256[:2], MOST_BYTES[:2], is_whole=True)
    assert (tmp_path / SLOTS).stat().st_ino != before.st_ino
    assert read_all(slots) == EXPECTED[:2]
    assert check(tmp_path) == {"pictures": 2, "kept": 2, "damaged": 0}
    # Of others alone nothing is kept, and one that was never written stays empty.
    slots = open_slots(tmp_path, SHA256[2:], MOST_BYTES[2:], is_whole=True)
    assert read_all(slots) == [None, None]
    assert check(tmp_path) == {"pictures": 2, "kept": 0, "damaged": 0}
    slots.write(0, STORED[2])
    slots = open_slots(tmp_path, SHA256[2:3], MOST_BYTES[2:3], is_whole=True)
    assert read_all(slots) == EXPECTED[2:3]
    assert check(tmp_path / "nothing") == {"pictures": 0, "kept": 0, "damaged": 0}
