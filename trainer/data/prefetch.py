"""Make batches ahead of those who need them, in a thread."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
S = TypeVar("S")


def prefetch(make: Callable[[T], S], items: Iterable[T], ahead: int) -> Iterator[S]:
    """Yield `make` of each item, in order, while a thread makes those that come next.

    An error of `make` is raised where its item would come. The thread ends with the iterator:
    close it, if it may not be exhausted.

    Args:
        ahead: how many may be finished and wait; 0: there is no thread.
    """
    if ahead == 0:
        yield from map(make, items)
        return
    waiting: deque[Future[S]] = deque()
    left = iter(items)
    pool = ThreadPoolExecutor(1, "prefetch")
    try:
        for item in itertools.islice(left, ahead):
            waiting.append(pool.submit(make, item))
        while waiting:
            made = waiting.popleft().result()
            for item in itertools.islice(left, 1):
                waiting.append(pool.submit(make, item))
            yield made
    finally:
        pool.shutdown(cancel_futures=True)
