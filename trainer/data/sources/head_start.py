"""Look into pictures in a process of its own, while torch and its company are imported.

Both take about a second, the imports on one core: so the pictures of a first start are mostly known
when the run begins. What is not is left to it, and so is every error.
"""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import signal
import sys
from collections.abc import Iterator

from trainer.base.errors import UserError
from trainer.config.schema import DataConfig
from trainer.ranks import processes

_PR_SET_PDEATHSIG = 1
"""of prctl(2): which signal comes when the other process has ended"""

_NICENESS = 10
"""of the process: nobody is to wait for it"""


@contextlib.contextmanager
def look_into_pictures(config: DataConfig) -> Iterator[None]:
    """Look into the pictures of a source until the end of this context, before torch comes.

    One process of each machine does it, where it has a core to spare.
    """
    # Elsewhere a process is not forked, or may not be.
    can_fork = sys.platform == "linux" and processes.usable_cores() > 1
    if not can_fork or not config.has_pictures or processes.launched_local_rank() > 0:
        yield
        return
    # This process needs it, too, and so it is imported once.
    from trainer.data.sources import reading

    pid = os.fork()
    if pid == 0:
        try:
            os.nice(_NICENESS)
            _become_helper()
            reading.look_into_pictures(config)
        except (UserError, OSError):
            pass  # the run comes upon it and says it
        finally:
            os._exit(0)
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
        os.waitpid(pid, 0)


def _become_helper() -> None:
    """Leave all messages to the run, and end with SIGTERM, when what is known is noted."""
    logging.disable()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
