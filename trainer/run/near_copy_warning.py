"""Warn of pictures that are nearly equal across parts, when the training has begun."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import threading
from concurrent.futures import Future

from trainer.base.errors import UserError
from trainer.config.schema import RunConfig
from trainer.data import near_copy_search
from trainer.data.dataset import Dataset

_NICENESS = 10
"""of the thread: no step is to wait for it"""

log = logging.getLogger("lockstep")


class NearCopyWarning:
    """Looks for near copies in a thread of its own, and warns once.

    It computes nothing that a run depends on, and so only one process of a run does it.

    Args:
        config: of the run.
        data: its images.
    """

    def __init__(self, config: RunConfig, data: Dataset) -> None:
        self._config = config
        self._images = data.train.images
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._found: Future[tuple[str, ...]] = Future()
        pictures = sum(map(len, (data.train, data.validation, data.test)))
        if near_copy_search.is_needed(config.data, pictures):
            self._thread = threading.Thread(target=self._search, name="near copies", daemon=True)
        else:
            self._found.set_result(())

    def start(self) -> None:
        """Begin, unless that was done before."""
        if self._thread and self._thread.ident is None:
            self._thread.start()

    def say(self, *, wait: bool = False) -> None:
        """Warn of what was found, the first time that it is known; `wait`: until it is."""
        if not (wait or self._found.done()):
            return
        self.start()
        found, self._found = self._found.result(), Future()
        self._found.set_result(())
        for warning in found:
            log.warning("%s", warning)

    def stop(self) -> None:
        """End the search, whatever it has found."""
        self._stop.set()
        if self._thread and self._thread.ident is not None:
            self._thread.join()

    def _search(self) -> None:
        if sys.platform == "linux":  # where threads have their own
            with contextlib.suppress(OSError):
                os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICENESS)
        try:
            config, asked_to_stop = self._config, self._stop.is_set
            found = near_copy_search.search(config.data, config.seed, self._images, asked_to_stop)
        except UserError as error:
            found = (f"pictures that are nearly equal were not looked for: {error}",)
        except Exception as error:  # whatever it is, the run does not depend on this
            why = f"{type(error).__name__}: {error}"
            found = (f"pictures that are nearly equal were not looked for ({why})",)
        self._found.set_result(found)
