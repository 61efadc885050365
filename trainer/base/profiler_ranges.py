"""Named ranges of a step for torch's profiler; while nobody records them they do nothing."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from torch.autograd.profiler import record_function

_NOTHING = contextlib.nullcontext()

_finish_work: Callable[[], None] | None = None
"""while ranges are recorded"""


def label(name: str) -> contextlib.AbstractContextManager[None]:
    """A range of this name, to be used as a context."""
    return _NOTHING if _finish_work is None else _recorded(name, _finish_work)


@contextlib.contextmanager
def record(finish_work: Callable[[], None]) -> Iterator[None]:
    """Record ranges inside of this context.

    Args:
        finish_work: waits for the device, so that what a range has begun counts as its own.
    """
    global _finish_work  # noqa: PLW0603 - as the profiler, it is one for the process
    _finish_work = finish_work
    try:
        yield
    finally:
        _finish_work = None


@contextlib.contextmanager
def _recorded(name: str, finish_work: Callable[[], None]) -> Iterator[None]:
    finish_work()
    with record_function(name):
        yield
        finish_work()
