"""Functions of users that see what a run measures, and cannot change it."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Sequence

from trainer.training.observer import Record

Hook = Callable[[Record], object]

log = logging.getLogger("lockstep")


class Hooks:
    """A hook for each event of metrics.jsonl, called on rank 0 in the process's main thread.

    Its first failure gives one warning, and it is not called again; the training goes on.

    Args:
        on_step: gets the record of each step, some of them together about every second.
        on_epoch: gets the record of each epoch.
    """

    def __init__(self, on_step: Hook | None = None, on_epoch: Hook | None = None) -> None:
        self._by_event = {"step": on_step, "epoch": on_epoch}

    def see(self, records: Sequence[Record]) -> None:
        """Hand on the records, each as a copy."""
        for record in records:
            event = record["event"]
            hook = self._by_event[event]
            if hook is None:
                continue
            try:
                hook(copy.deepcopy(record))
            except (Exception, SystemExit) as error:
                self._by_event[event] = None
                log.warning(
                    "on_%s is not called any more: it failed with %s: %s; the training goes on",
                    event, type(error).__name__, error,
                )  # fmt: skip
