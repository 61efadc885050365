"""The learning rate as a pure function of the optimiser step."""

from __future__ import annotations

import math

from trainer.config import ScheduleConfig


def learning_rate(
    config: ScheduleConfig, peak: float, step: int, total_steps: int, steps_per_epoch: int
) -> float:
    """The learning rate of an optimiser step.

    In the warm-up it rises linearly and would reach `peak` at the first step after it. From there
    it falls along the shape and would reach `final_fraction * peak` at the step after the last.

    Args:
        config: shape of the schedule.
        peak: `optimizer.lr`.
        step: counted over the whole run from 1.
        total_steps: steps of the whole run.
        steps_per_epoch: turns `warmup_epochs` into steps.
    """
    warmup_steps = round(config.warmup_epochs * steps_per_epoch)
    if step <= warmup_steps:
        return peak * step / (warmup_steps + 1)
    progress = (step - 1 - warmup_steps) / (total_steps - warmup_steps)
    match config.name:
        case "constant":
            return peak
        case "linear":
            shape = 1.0 - progress
        case "cosine":
            shape = (1.0 + math.cos(math.pi * progress)) / 2.0
    return peak * (config.final_fraction + (1.0 - config.final_fraction) * shape)
