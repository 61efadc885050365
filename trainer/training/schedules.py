"""Compute the learning rate as a pure function of the optimiser step."""

from __future__ import annotations

import math

from trainer.config.schema import ScheduleConfig

_FIRST_FRACTION = 1 / 25


def learning_rate(
    config: ScheduleConfig, peak: float, step: int, total_steps: int, steps_per_epoch: int
) -> float:
    """Return the learning rate of an optimiser step.

    In the warm-up it rises and would reach `peak` at the first step after it: linearly from near
    zero, or along half a cosine from a 25th of the peak where the schedule is one_cycle. From there
    it falls along the shape and would reach `final_fraction * peak` at the step after the last;
    piecewise, the first step after a milestone is the first at the lower rate.

    The policy of one cycle is Smith and Topin's (Super-Convergence, 2017, arXiv 1708.07120), with
    the cosines and the 25th of torch's OneCycleLR; the momentum stays as it is.

    Args:
        step: counted over the whole run from 1.
        total_steps: steps of the whole run.
        steps_per_epoch: turns `warmup_epochs` and `milestones` into steps.
    """
    warmup_steps = round(config.warmup_epochs * steps_per_epoch)
    if step <= warmup_steps:
        if config.name == "one_cycle":
            rise = 1.0 - _half_cosine((step - 1) / warmup_steps)
            return peak * (_FIRST_FRACTION + (1.0 - _FIRST_FRACTION) * rise)
        return peak * step / (warmup_steps + 1)
    progress = (step - 1 - warmup_steps) / (total_steps - warmup_steps)
    match config.name:
        case "constant":
            return peak
        case "piecewise":
            milestones = [round(epoch * steps_per_epoch) for epoch in config.milestones or []]
            return peak * config.factor ** sum(step > milestone for milestone in milestones)
        case "linear":
            shape = 1.0 - progress
        case "cosine" | "one_cycle":
            shape = _half_cosine(progress)
    return peak * (config.final_fraction + (1.0 - config.final_fraction) * shape)


def _half_cosine(progress: float) -> float:
    """Fall from 1 to 0 as `progress` goes from 0 to 1."""
    return (1.0 + math.cos(math.pi * progress)) / 2.0
