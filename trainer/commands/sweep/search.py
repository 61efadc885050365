"""What a trial tries, and when it is given up: functions of the trials that it may see.

Trial N sees the results of the trials 0 to N - at_once, which are over before it begins, and of
those between only what they try. So neither depends on how many workers there are, on which of them
is faster, or on a kill.
"""

from __future__ import annotations

import math
import statistics
import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState, create_trial

from trainer.base import seeding
from trainer.commands.sweep.space import Space

MOST_DRAWS = 20
"""for something that no trial has tried"""
LEAST_COMPARED = 5
"""so many trials must have reached an epoch before another is given up after it"""
LEAST_WEIGHED = 8
"""so many trials must have come to their end before keys are weighed"""
_FIRST_SHARE = 0.2
"""of its epochs that a trial does in any case"""


def suggest(
    space: Space, seed: int, trials: Sequence[FrozenTrial], at_once: int, *, minimize: bool
) -> dict[str, Any]:
    """Return what the next trial tries, by Optuna's TPE: a label for each key.

    The first ten are drawn at random (Bergstra, Bardenet, Bengio, Kégl: Algorithms for
    Hyper-Parameter Optimization, 2011). What was tried before would give the same again to the
    bit, so then it is drawn again, and accepted where a small space gives nothing else.

    Args:
        trials: all before it.
    """
    number = len(trials)
    study = optuna.create_study(direction="minimize" if minimize else "maximize")
    for trial in trials:
        study.add_trial(_as_seen(trial, is_over=trial.number <= number - at_once))
    distributions = {key: of.distribution() for key, of in space.items()}
    tried, labels = [trial.params for trial in trials], dict[str, Any]()
    for attempt in range(MOST_DRAWS):
        stream = seeding.integer(seed, "sweep", number, attempt)
        study.sampler = optuna.samplers.TPESampler(seed=stream % 2**32)
        found = study.ask(distributions).params
        labels = {key: of.label(found[key]) for key, of in space.items()}
        if labels not in tried:
            break
    return labels


def _as_seen(trial: FrozenTrial, *, is_over: bool) -> FrozenTrial:
    """Return a trial as it is, or as one that still runs."""
    if is_over:
        return trial
    return create_trial(
        state=TrialState.RUNNING, params=trial.params, distributions=trial.distributions
    )


def thresholds(
    curves: Iterable[Sequence[float]], epochs: int, *, minimize: bool
) -> dict[int, float]:
    """Return by the epoch which figure a trial must have reached after it, or be given up.

    It is the median of what the other trials that did as many epochs had reached by then (the
    median stopping rule of Golovin et al.: Google Vizier, 2017, with the best figure for the mean).

    Args:
        curves: of the other trials, the figure after each epoch.
        epochs: of the trial; after the last there is nothing to give up.
    """
    best = max if not minimize else min
    known, found = list(curves), {}
    for epoch in range(math.ceil(_FIRST_SHARE * epochs), epochs):
        reached = [best(curve[:epoch]) for curve in known if len(curve) >= epoch > 0]
        if len(reached) >= LEAST_COMPARED:
            found[epoch] = statistics.median(reached)
    return found


def is_behind(best: float | None, threshold: float, *, minimize: bool) -> bool:
    """Tell whether the best figure of a trial so far is worse than a threshold."""
    return best is not None and (best > threshold if minimize else best < threshold)


def was_pruned(curve: Sequence[float], limits: Mapping[int, float], *, minimize: bool) -> bool:
    """Tell whether a trial with these figures was given up after its last epoch."""
    epoch = len(curve)
    best = min(curve) if minimize else max(curve)
    return epoch in limits and is_behind(best, limits[epoch], minimize=minimize)


def importance(trials: Sequence[FrozenTrial], *, minimize: bool) -> dict[str, float] | None:
    """Return how much each key decides whether a trial is a good one; together they are 1.

    By Optuna's PED-ANOVA (Watanabe, Bansal, Hutter: PED-ANOVA, 2023), over the trials that came to
    their end. None: there are too few of them, or the best are not told from the others by any key,
    as where all have the same figure.
    """
    complete = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    if len(complete) < LEAST_WEIGHED:
        return None
    study = optuna.create_study(direction="minimize" if minimize else "maximize")
    study.add_trials(complete)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what has one value only, which has no importance
        evaluator = optuna.importance.PedAnovaImportanceEvaluator()
        found = optuna.importance.get_param_importances(study, evaluator=evaluator, normalize=False)
    total = sum(found.values())
    return {key: value / total for key, value in found.items()} if total else None
