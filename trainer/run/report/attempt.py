"""The pages about runs, which are made from their files. None of them may cost what it is about."""

from __future__ import annotations

import logging
from collections.abc import Callable

from trainer.base.timeouts import run_with_timeout

LIMIT_S = 300.0
"""how long pictures and a page may take at the end of a run"""

log = logging.getLogger("lockstep")


def attempt(what: str, write: Callable[[], None]) -> None:
    """Write something that a run can do without: what goes wrong or takes too long is a warning."""
    try:
        run_with_timeout(LIMIT_S, write)
    except (Exception, SystemExit) as error:
        log.warning("%s could not be written: %s: %s", what, type(error).__name__, error)
