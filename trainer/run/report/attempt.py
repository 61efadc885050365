"""Write pictures and pages in a way that never costs the run that they are about."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeVar

from trainer.base.timeouts import run_with_timeout

T = TypeVar("T")

LIMIT_S = 300.0
"""how long pictures and a page may take at the end of a run"""

log = logging.getLogger("lockstep")


def attempt(what: str, make: Callable[[], T]) -> T | None:
    """Make something that a run can do without: warn if it fails or takes too long."""
    try:
        return run_with_timeout(LIMIT_S, make)
    except (Exception, SystemExit) as error:
        log.warning("%s could not be written: %s: %s", what, type(error).__name__, error)
        return None
