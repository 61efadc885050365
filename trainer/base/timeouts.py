"""Run calls that may hang, such as those that ask another machine."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

_NAME = "call with a time limit"


def run_with_timeout(limit_s: float, call: Callable[[], T]) -> T:
    """Return the result of `call`, run in a thread that is abandoned after `limit_s` seconds.

    Raises:
        TimeoutError: it took longer.
    """
    results: list[T] = []
    errors: list[BaseException] = []

    def work() -> None:
        try:
            results.append(call())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=work, name=_NAME, daemon=True)
    thread.start()
    thread.join(limit_s)
    if errors:
        raise errors[0]
    if not results:
        raise TimeoutError(f"no answer within {limit_s} s")
    return results[0]


def has_abandoned_call() -> bool:
    """Return whether a call is still running that exceeded its limit."""
    return any(thread.name == _NAME for thread in threading.enumerate())
