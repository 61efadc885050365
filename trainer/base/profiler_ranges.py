"""Label ranges of a step for torch's profiler; while nobody records them this costs nothing."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from torch.autograd.profiler import record_function

_NOTHING = contextlib.nullcontext()

_finish_work: Callable[[], None] | None = None
"""while ranges are recorded"""


def label(name: str) -> contextlib.AbstractContextManager[None]:
    """Return a context that is a range of this name."""
    return _NOTHING if _finish_work is None else _recorded(name, _finish_work)


@contextlib.contextmanager
def record(finish_work: Callable[[], None]) -> Iterator[None]:
    """Record ranges inside this context.

    Args:
        finish_work: waits for the device, so that the work that a range starts counts for it.
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
