"""Run calls that may hang, such as those that ask another machine."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, wait
from typing import TypeVar

T = TypeVar("T")

_NAME = "call with a time limit"


def run_with_timeout(limit_s: float, call: Callable[[], T]) -> T:
    """Return the result of `call`, run in a thread that is abandoned after `limit_s` seconds.

    Raises:
        TimeoutError: it took longer.
    """
    future: Future[T] = Future()

    def work() -> None:
        try:
            future.set_result(call())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=work, name=_NAME, daemon=True).start()
    wait([future], limit_s)
    if not future.done():
        raise TimeoutError(f"no answer within {limit_s} s")
    return future.result()


def has_abandoned_call() -> bool:
    """Return whether a call is still running that exceeded its limit."""
    return any(thread.name == _NAME for thread in threading.enumerate())
