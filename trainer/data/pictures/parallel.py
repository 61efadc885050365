"""Read many picture files on all usable cores."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from trainer.base.terminal import progress_bar
from trainer.ranks import processes

_CHUNK = 128
_BAR_AFTER_S = 2.0

T = TypeVar("T")
S = TypeVar("S")


def in_parallel(function: Callable[[S], T], items: Sequence[S], what: str) -> Iterator[T]:
    """Yield the results in the order of the items; a bar shows on a terminal if it takes long.

    Threads are enough: Pillow and hashlib let other threads run meanwhile.
    """
    with (
        ThreadPoolExecutor(processes.usable_cores()) as pool,
        progress_bar(what, len(items), delay=_BAR_AFTER_S) as progress,
    ):
        # In chunks, so that results do not pile up in memory.
        for begin in range(0, len(items), _CHUNK):
            for result in pool.map(function, items[begin : begin + _CHUNK]):
                yield result
                progress.update()
