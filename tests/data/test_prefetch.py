"""A thread makes what comes next: in order, with its errors, and it ends."""

from __future__ import annotations

import threading

import pytest

from trainer.base.errors import RankError
from trainer.data.prefetch import prefetch


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if "prefetch" in thread.name]


@pytest.mark.parametrize("ahead", [0, 1, 3, 20])
def test_everything_comes_in_order(ahead: int) -> None:
    assert list(prefetch(lambda number: number**2, range(10), ahead)) == [n**2 for n in range(10)]
    assert not threads()


def test_as_many_are_made_as_may_wait() -> None:
    made, fourth = [], threading.Event()

    def make(number: int) -> int:
        made.append(number)
        if number == 3:
            fourth.set()
        return number

    with_three = prefetch(make, range(10), 3)
    assert next(with_three) == 0
    assert fourth.wait(10)
    with_three.close()
    assert made == [0, 1, 2, 3]
    assert not threads()


@pytest.mark.parametrize("ahead", [0, 2])
def test_an_error_comes_where_its_item_would_come(ahead: int) -> None:
    def make(number: int) -> int:
        if number == 2:
            raise RankError("a.jpg: is broken")
        return number

    found = prefetch(make, range(10), ahead)
    assert [next(found), next(found)] == [0, 1]
    with pytest.raises(RankError, match=r"^a\.jpg: is broken$"):
        next(found)
    assert not threads()
