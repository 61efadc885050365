"""Compute the learning rate as a pure function of the optimiser step."""

from __future__ import annotations

import math

from trainer.base import portable_math
from trainer.base.errors import UserError
from trainer.config import plugins
from trainer.config.plugins import Plugin
from trainer.config.schema import RunConfig, ScheduleConfig

_FIRST_FRACTION = 1 / 25
_TRIED = 100
"""steps of a schedule of the user's own before the first one is done"""


class Schedule:
    """The learning rate of each step of a run.

    Args:
        steps_per_epoch: optimiser steps of an epoch.

    Raises:
        UserError: the warm-up is longer than the run; or the schedule is the user's own, and there
            is no such function or it gives no rate.
    """

    def __init__(self, config: RunConfig, steps_per_epoch: int) -> None:
        self.config = config.schedule
        self.peak = config.optimizer.lr
        self.steps_per_epoch = steps_per_epoch
        self.total_steps = config.train.epochs * steps_per_epoch
        check_warmup(self.config, self.total_steps)
        self.own: Plugin | None = None
        if not plugins.is_built_in("schedule", self.config.name):
            self.own = plugins.find("schedule", self.config.name)
            self._try()

    def rate(self, step: int, plateaus: int = 0) -> float:
        """Return the learning rate of a step, as `learning_rate` does."""
        warmup_steps = _warmup_steps(self.config, self.steps_per_epoch)
        if self.own and step > warmup_steps:
            left = self.total_steps - warmup_steps
            return self.peak * _own_factor(
                self.own, step - 1 - warmup_steps, left, self.steps_per_epoch
            )
        return learning_rate(
            self.config, self.peak, step, self.total_steps, self.steps_per_epoch, plateaus
        )

    def _try(self) -> None:
        """Ask for some rates of a schedule of the user's own, each twice."""
        assert self.own is not None
        steps = {*range(1, self.total_steps + 1, -(-self.total_steps // _TRIED)), self.total_steps}
        rates = {step: self.rate(step) for step in sorted(steps)}
        for step in sorted(steps, reverse=True):
            if self.rate(step) != rates[step]:
                raise self.own.error(
                    f"gives another factor for step {step - 1} the second time; it must depend on "
                    f"its arguments only, as a run that goes on asks again"
                )


def check_warmup(config: ScheduleConfig, total_steps: int) -> None:
    """Make sure that a warm-up in steps ends before the run.

    Raises:
        UserError: it does not.
    """
    if config.warmup_steps is not None and config.warmup_steps >= total_steps:
        raise UserError(
            f"schedule.warmup_steps: must be less than the steps of the run, which are "
            f"{total_steps:,}, found {config.warmup_steps}"
        )


def learning_rate(
    config: ScheduleConfig,
    peak: float,
    step: int,
    total_steps: int,
    steps_per_epoch: int,
    plateaus: int = 0,
) -> float:
    """Return the learning rate of an optimiser step.

    In the warm-up it rises and would reach `peak` at the first step after it: linearly from near
    zero, or along half a cosine from a 25th of the peak where the schedule is one_cycle. From there
    it falls along the shape and would reach `final_fraction * peak` at the step after the last;
    piecewise, the first step after a milestone is the first at the lower rate. With restarts each
    cosine begins at the peak, and would reach the end at the first step of the next.

    The policy of one cycle is Smith and Topin's (Super-Convergence, 2017, arXiv 1708.07120), with
    the cosines and the 25th of torch's OneCycleLR; the momentum stays as it is. Restarts are those
    of Loshchilov and Hutter (SGDR, 2017, arXiv 1608.03983).

    Args:
        step: counted over the whole run from 1.
        total_steps: steps of the whole run.
        steps_per_epoch: turns `warmup_epochs`, `cycle_epochs` and `milestones` into steps.
        plateaus: how often a plateau has lowered the rate so far.
    """
    warmup_steps = _warmup_steps(config, steps_per_epoch)
    if step <= warmup_steps:
        if config.name == "one_cycle":
            rise = 1.0 - _half_cosine((step - 1) / warmup_steps)
            return peak * (_FIRST_FRACTION + (1.0 - _FIRST_FRACTION) * rise)
        return peak * step / (warmup_steps + 1)
    done = step - 1 - warmup_steps
    progress = done / (total_steps - warmup_steps)
    match config.name:
        case "constant":
            return peak
        case "piecewise":
            milestones = [round(epoch * steps_per_epoch) for epoch in config.milestones or []]
            return peak * portable_math.power(
                config.factor, sum(step > milestone for milestone in milestones)
            )
        case "plateau":
            return peak * portable_math.power(config.factor, plateaus)
        case "linear":
            shape = 1.0 - progress
        case "cosine" | "one_cycle":
            shape = _half_cosine(progress)
        case "polynomial":
            shape = portable_math.power(1.0 - progress, config.power)
        case "restarts":
            assert config.cycle_epochs is not None
            first_steps = max(1, round(config.cycle_epochs * steps_per_epoch))
            shape = _half_cosine(_progress_in_cycle(done, first_steps, config.cycle_factor))
    return peak * (config.final_fraction + (1.0 - config.final_fraction) * shape)


def _warmup_steps(config: ScheduleConfig, steps_per_epoch: int) -> int:
    return config.warmup_steps or round(config.warmup_epochs * steps_per_epoch)


def _own_factor(own: Plugin, step: int, total_steps: int, steps_per_epoch: int) -> float:
    """Return the factor that a user's schedule gives, to nine digits.

    The C library's functions differ from processor to processor in the last of seventeen.
    """
    with own.explain_errors():
        found: object = own.member(step, total_steps, steps_per_epoch)
    is_number = isinstance(found, (int, float)) and not isinstance(found, bool)
    if not is_number or not 0 <= float(found) < math.inf:  # type: ignore[arg-type]
        raise own.error(
            f"gives {found!r} for step {step} of {total_steps}; it must be a factor of "
            f"optimizer.lr, a number of 0 or more"
        )
    return float(f"{found:.9g}")


def _progress_in_cycle(done: int, first_steps: int, factor: float) -> float:
    """Return which share of the current cycle is done after `done` steps of all cycles."""
    steps = float(first_steps)
    left = float(done)
    while left >= steps:
        left -= steps
        steps = float(round(steps * factor))
    return left / steps


def _half_cosine(progress: float) -> float:
    """Fall from 1 to 0 as `progress` goes from 0 to 1."""
    return (1.0 + portable_math.cos(math.pi * progress)) / 2.0
