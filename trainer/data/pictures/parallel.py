"""Read many picture files, on all usable cores where that is faster than on one."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from trainer.base.terminal import progress_bar
from trainer.ranks import processes

_CHUNK = 128
_TRIAL = 16
"""items of a chunk in which one way is tried"""
_FIRST = 3
"""chunks, in threads, alone and in threads again, as the first one is slow for other reasons"""
_TRIED_AT = frozenset((1, 2, *(16**power for power in range(1, 8))))
"""numbers of the chunks in which what seems slower is tried"""
_SHARE = 0.25
"""of the newest chunk in what is known of a way's speed"""
_BAR_AFTER_S = 2.0

T = TypeVar("T")
S = TypeVar("S")


def in_parallel(function: Callable[[S], T], items: Sequence[S], what: str) -> Iterator[T]:
    """Yield the results in the order of the items; a bar shows on a terminal if it takes long."""
    with progress_bar(what, len(items), delay=_BAR_AFTER_S) as progress:
        yield from in_threads(
            function, items, processes.usable_cores(), lambda _: progress.update()
        )


def in_threads(
    function: Callable[[S], T],
    items: Sequence[S],
    threads: int,
    tell: Callable[[T], object],
) -> Generator[T, None, None]:
    """Yield the results in the order of the items.

    Threads are enough: Pillow, hashlib and the disk let others run meanwhile. Where files are small
    they hand the interpreter to one another all the time, and one thread alone is faster. Which way
    is better is measured now and then.

    Args:
        tell: called with each result as soon as it is there; some are held back for a while.
    """
    with ThreadPoolExecutor(threads) as pool:
        ways: tuple[Callable[..., Iterator[T]], ...] = (pool.map, map)
        item_s = [0.0, math.inf]
        begin = 0
        # In chunks, so that results do not pile up in memory.
        for number in itertools.count():
            if begin >= len(items):
                return
            faster = int(item_s[1] < item_s[0])
            is_trial = number in _TRIED_AT
            way = 1 - faster if is_trial else faster
            chunk = items[begin : begin + (_TRIAL if is_trial else _CHUNK)]
            begin_s, results = time.perf_counter(), []
            for result in ways[way](function, chunk):
                results.append(result)
                tell(result)
            new_s = (time.perf_counter() - begin_s) / len(chunk)
            # Averaged over some chunks, as a busy moment of the machine is none of the way's.
            item_s[way] = new_s if number < _FIRST else item_s[way] + _SHARE * (new_s - item_s[way])
            yield from results
            begin += len(chunk)
