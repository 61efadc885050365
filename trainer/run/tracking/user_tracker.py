"""A tracker of the user's own."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from trainer.config.plugins import Plugin
from trainer.training.observer import Record


class OwnTracker(Protocol):
    """What a class under `@register_tracker` has.

    It is made where a run starts or goes on, as `(config, folder, step)`: the keys of the
    configuration in dotted form, the run's folder, and the step after which the run goes on, 0 at
    its start. Records of later steps that it has already come again. Each call may come from
    another thread.
    """

    def log(self, record: dict[str, Any]) -> None:
        """Take a record of metrics.jsonl: its "event" is "step" or "epoch"."""

    def finish(self, results: dict[str, Any] | None) -> None:
        """Take what results.json holds, None where the run ended before its end."""


class OwnTrackerAdapter:
    """The user's tracker as one of ours; it gets copies of everything."""

    def __init__(self, plugin: Plugin, config: dict[str, Any], output_dir: Path, step: int) -> None:
        self._own: OwnTracker = plugin.member(copy.deepcopy(config), output_dir, step)

    def log(self, records: Sequence[Record]) -> None:
        """As `Tracker`."""
        for record in records:
            self._own.log(copy.deepcopy(record))

    def finish(
        self, results: dict[str, Any] | None, output_dir: Path, stopped: bool = False
    ) -> None:
        """As `Tracker`."""
        self._own.finish(copy.deepcopy(results))
