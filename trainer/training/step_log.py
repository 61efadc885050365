"""Collect the figures of steps on the device; sum them up and show them at log points."""

from __future__ import annotations

import math
import time

import torch

from trainer.base.errors import NonFiniteLossError
from trainer.training.observer import Observer, Record
from trainer.training.run_state import RunState
from trainer.training.step import StepResult


class StepLog:
    """Keeps the results of steps until a log point, so that no step waits for the device."""

    def __init__(self) -> None:
        self._waiting: list[tuple[Record, int, StepResult]] = []
        self._clock_s = 0.0

    def start_clock(self) -> None:
        """Count the time from here on as training."""
        self._clock_s = time.perf_counter()

    def add(self, epoch: int, step: int, lr: float, samples: int, result: StepResult) -> None:
        """Keep a step's result, which may not be computed yet; `samples` of all processes."""
        record = {"event": "step", "epoch": epoch, "step": step, "loss": None, "lr": lr}
        self._waiting.append((record, samples, result))

    def clear(self) -> None:
        """Forget the results that wait: the run goes back to before them."""
        self._waiting = []

    def flush(self, state: RunState, steps_done: int, observer: Observer | None) -> None:
        """Bring the results that wait to the host, into the epoch's sums and to the observer.

        Args:
            state: of the run; its sums grow.
            steps_done: in the current epoch.
            observer: None on ranks without one.

        Raises:
            NonFiniteLossError: names the first step whose loss was not finite, except those that
                were left out.
        """
        waiting, self._waiting = self._waiting, []
        if not waiting:
            return
        losses = torch.stack([result.loss for *_, result in waiting]).tolist()
        accuracies = torch.stack([result.accuracy for *_, result in waiting]).tolist()
        now_s = time.perf_counter()
        state.epoch_seconds += now_s - self._clock_s
        self._clock_s = now_s
        skipped = set(state.skipped_steps)
        for (record, samples, _), loss, accuracy in zip(waiting, losses, accuracies, strict=True):
            record["loss"] = loss
            state.epoch_samples += samples
            if record["step"] not in skipped:
                state.loss_sum += loss * samples
                state.hits += accuracy * samples
                state.trained_samples += samples
        records = [record for record, *_ in waiting]
        bad = [not math.isfinite(r["loss"]) and r["step"] not in skipped for r in records]
        # The steps after a bad one may be computed again, from other weights.
        seen = records[: bad.index(True) + 1] if any(bad) else records
        if observer:
            loss, accuracy = epoch_means(state)
            speed = state.epoch_samples / state.epoch_seconds
            progress = {"loss": loss, "accuracy": accuracy, "samples_per_second": speed}
            observer.steps_done(seen, {"steps": steps_done, **progress})
        if any(bad):
            step, loss = seen[-1]["step"], seen[-1]["loss"]
            raise NonFiniteLossError(
                f"the loss of step {step} is {loss}: training cannot go on", step
            )


def epoch_means(state: RunState) -> tuple[float, float]:
    """Return loss and accuracy over the epoch so far; NaN if every step was left out."""
    if not state.trained_samples:
        return math.nan, math.nan
    return state.loss_sum / state.trained_samples, state.hits / state.trained_samples
