"""Which slot is whose: a picture keeps its own, and no two have bytes in common."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from trainer.data.stored import slot_index
from trainer.data.stored.slot_index import HEAD, INDEX, SLOTS, Rows

EMPTY = np.empty(0, dtype=slot_index._ROW)


def names(*texts: str) -> np.ndarray:
    return np.array([text.encode().ljust(32, b"-") for text in texts], "S32")


def add(rows: Rows, *slots: tuple[str, int]) -> Rows:
    sizes = np.array([size for _, size in slots])
    return slot_index.with_more(rows, names(*(name for name, _ in slots)), sizes)


def listed(rows: Rows) -> list[tuple[str, int, int]]:
    """The name of each row, and where its slot begins and ends in the file."""
    return [
        (name.decode().strip("-"), begin, begin + HEAD.size + most)
        for name, begin, most in rows.tolist()
    ]


def test_slots_come_one_after_the_other_and_stay_where_they_are() -> None:
    rows = add(EMPTY, ("m", 10), ("c", 20), ("m", 10))
    assert listed(rows) == [("c", 0, 28), ("m", 28, 46)]
    rows = add(rows, ("z", 5), ("a", 1))
    assert listed(rows) == [("a", 46, 55), ("c", 0, 28), ("m", 28, 46), ("z", 55, 68)]
    # Behind the one that ends last, whichever row that is.
    rows = add(rows[[0, 1]], ("b", 2))
    assert listed(rows) == [("a", 46, 55), ("b", 55, 65), ("c", 0, 28)]


def test_a_name_is_found_or_not() -> None:
    rows = add(EMPTY, ("b", 1), ("d", 1), ("f", 1))
    assert slot_index.find(rows, names("f", "a", "b", "c", "g", "d")).tolist() == [
        2, -1, 0, -1, -1, 1,
    ]  # fmt: skip
    found = slot_index.find(EMPTY, names("a", "b"))
    assert (found.tolist(), found.dtype) == ([-1, -1], np.int64)


def test_slots_of_others_are_needless_where_they_are_most() -> None:
    rows = add(EMPTY, ("a", 10), ("b", 20), ("c", 30), ("d", 1))
    for found, are_wanted, expected in (
        ([2, -1, 3], [False, False, True, True], False),
        ([-1, 2, -1], [False, False, True, False], True),
        ([], [False] * 4, True),
        ([0, 1, 2, 3], [True] * 4, False),
    ):
        places = np.array(found, np.int64)
        wanted = slot_index.are_wanted(rows, places)
        assert (wanted.tolist(), wanted.dtype) == (are_wanted, np.bool_)
        assert slot_index.has_needless(rows, places) is expected
    # Half of them are not most.
    assert not slot_index.has_needless(rows[:3], np.array([2]))


def test_an_index_is_written_with_room_for_all_slots(tmp_path: Path) -> None:
    rows = add(EMPTY, ("m", 10), ("c", 20))
    before = os.umask(0o022)
    try:
        slot_index.write(tmp_path, rows)
    finally:
        os.umask(before)
    assert {path.name for path in tmp_path.iterdir()} == {INDEX, SLOTS}
    assert (tmp_path / SLOTS).stat().st_size == 46
    assert (tmp_path / SLOTS).stat().st_mode & 0o777 == 0o644
    assert listed(slot_index.load(tmp_path)) == listed(slot_index.read(tmp_path)) == listed(rows)
    # What is there stays, where another process has more already.
    (tmp_path / SLOTS).write_bytes(b"x" * 50)
    slot_index.write(tmp_path, rows)
    assert (tmp_path / SLOTS).read_bytes() == b"x" * 50
    slot_index.write(tmp_path, add(rows, ("d", 12)))
    assert (tmp_path / SLOTS).read_bytes() == b"x" * 50 + bytes(16)


class Trap:
    """Makes a file where somebody unpickles it."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path("ran").touch, ())


@pytest.mark.parametrize("damage", ["missing", "cut", "other columns", "pickle", "no slots"])
def test_without_a_whole_index_nobody_has_a_slot(
    damage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    entry = tmp_path / "entry"
    entry.mkdir()
    slot_index.write(entry, add(EMPTY, ("a", 10)))
    if damage == "missing":
        (entry / INDEX).unlink()
    elif damage == "cut":
        os.truncate(entry / INDEX, 100)
    elif damage == "other columns":
        np.save(entry / INDEX, np.zeros(3))
    elif damage == "pickle":
        np.save(entry / INDEX, np.array([Trap()]), allow_pickle=True)
    else:
        (entry / SLOTS).unlink()
    found = slot_index.load(entry)
    assert (len(found), found.dtype) == (0, EMPTY.dtype)
    assert (entry / SLOTS).exists() is (damage != "no slots")
    assert len(slot_index.read(entry)) == 0
    assert not (entry / SLOTS).exists()
    assert not Path("ran").exists()
