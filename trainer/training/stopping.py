"""Decide whether a run goes on: all ranks stop together, whichever of them has a reason to."""

from __future__ import annotations

import time

from accelerate import Accelerator

from trainer.base.errors import StoppedOnRequest
from trainer.checkpoint.writing import Checkpoints
from trainer.ranks import collectives
from trainer.ranks.preemption import StopRequest


class AskedToStop(Exception):  # noqa: N818 - nothing went wrong
    """All ranks have agreed to stop, because one of them was asked to; the message says why."""


class StopCheck:
    """Asks every rank whether it has a reason to stop.

    Args:
        checkpoints: whose failures are noticed here.
        max_seconds: from now on; None for no limit.
    """

    def __init__(
        self,
        accelerator: Accelerator,
        stop: StopRequest,
        checkpoints: Checkpoints,
        max_seconds: float | None,
    ) -> None:
        self.accelerator = accelerator
        self.stop = stop
        self.checkpoints = checkpoints
        self.end_s = None if max_seconds is None else time.monotonic() + max_seconds

    def __call__(self, proposal: float = 0.0) -> float:
        """Ask, at the end of a step or between blocks of an evaluation; a collective.

        Returns:
            The largest of the ranks' proposals.

        Raises:
            AskedToStop: a rank was asked to stop, or its time is up.
            UserError: a checkpoint could not be saved, and that is to end the run.
        """
        late = self.end_s is not None and time.monotonic() > self.end_s
        asked = self.stop.signal is not None or late
        stop, failed, largest = collectives.max_over_ranks(
            self.accelerator, [float(asked), float(self.checkpoints.failed), proposal]
        )
        if failed:
            collectives.run_on_main_rank(self.accelerator, self.checkpoints.wait)
        if stop:
            signal = self.stop.signal
            raise AskedToStop(signal.name if signal else "train.max_seconds or another rank")
        return largest

    def stopped(self, asked: AskedToStop, step: int) -> StoppedOnRequest:
        """Return what to raise when a run has stopped after a step, and tried to save that."""
        what = "everything is saved; the same command goes on from there"
        if self.checkpoints.lost:
            what = "but its checkpoint could not be saved; the same command goes on from the newest"
        return StoppedOnRequest(f"stopped at step {step} ({asked}), {what}")
