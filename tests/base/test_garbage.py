"""Imports are left out of the garbage collection, and what comes after them is not."""

from __future__ import annotations

import gc
import weakref

from trainer.base import garbage


class Part:
    """One that a cycle can be made of."""

    def __init__(self) -> None:
        self.other: Part = self


def test_only_what_was_there_is_left_out() -> None:
    try:
        with garbage.keep_all():
            assert not gc.isenabled()
            kept = weakref.ref(Part())
        assert gc.isenabled()
        later = weakref.ref(Part())
        gc.collect()
        assert kept() is not None
        assert later() is None
    finally:
        gc.unfreeze()
