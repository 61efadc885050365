"""Say whether two classifiers differ by more than chance: on the same images, or over seeds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from trainer.training import bootstrap, figures, label_draws
from trainer.training.figures import ScoredImages
from trainer.training.label_draws import ScoredLabels
from trainer.training.label_metrics import LabelPredictions
from trainer.training.metrics import Predictions

Answers = Predictions | LabelPredictions
"""the latter of images that may have several labels, of which all have to be right"""

LEVEL = 0.05
"""below which a difference counts as one"""


def compare_answers(first: Answers, second: Answers) -> dict[str, Any]:
    """Compare two classifiers' answers to the same images.

    Returns:
        `samples`; `only_first_correct` and `only_second_correct`, the images that only one has
        right; `mcnemar`, from `mcnemar_test`; `differs`, whether its p-value is below LEVEL; and
        `figures`: for each that both have `first`, `second`, their `difference` (the second less
        the first), and its `interval` at 95 %, of a bootstrap that draws the same images for both.
    """
    hits = [_hits(one) for one in (first, second)]
    only_first, only_second = int((hits[0] & ~hits[1]).sum()), int((hits[1] & ~hits[0]).sum())
    test = mcnemar_test(only_first, only_second)
    return {
        "samples": len(first),
        "only_first_correct": only_first,
        "only_second_correct": only_second,
        "mcnemar": test,
        "differs": test["p_value"] < LEVEL,
        "figures": _differences(first, second),
    }


def mcnemar_test(only_first: int, only_second: int) -> dict[str, float]:
    """Test whether two classifiers are right equally often, by the images that only one has right.

    McNemar: Note on the Sampling Error of the Difference between Correlated Proportions or
    Percentages, Psychometrika 12, 1947.

    Returns:
        `p_value`, the mid-p-value, which Fagerland, Lydersen and Laake recommend (The McNemar test
        for binary matched-pairs data, BMC Medical Research Methodology 13, 2013); and
        `exact_p_value`, that of the exact binomial test, which rejects too seldom.
    """
    count, fewer = only_first + only_second, min(only_first, only_second)
    if not count:
        return {"p_value": 1.0, "exact_p_value": 1.0}

    def probability(successes: int) -> float:
        ways = math.lgamma(count + 1) - math.lgamma(successes + 1)
        return math.exp(ways - math.lgamma(count - successes + 1) - count * math.log(2))

    point = probability(fewer)
    tail = math.fsum(probability(successes) for successes in range(fewer + 1))
    exact = min(1.0, 2 * tail)
    # Half of each tail's own outcome; where both tails have the same one, it is there once.
    middle = exact - point if only_first != only_second else 1 - point / 2
    return {"p_value": min(1.0, max(0.0, middle)), "exact_p_value": exact}


def _hits(answers: Answers) -> np.ndarray:
    """Return which images are answered rightly, bool (n,)."""
    right = np.asarray(answers.predicted == answers.target).reshape(len(answers), -1)
    found: np.ndarray = np.asarray(right.all(1))
    return found


def _score(answers: Answers) -> ScoredImages | ScoredLabels:
    if isinstance(answers, LabelPredictions):
        return ScoredLabels(answers.target, answers.predicted, answers.probabilities)
    return ScoredImages(answers)


def _differences(first: Answers, second: Answers) -> dict[str, Any]:
    """Return the figures of both and their differences, with intervals of paired draws."""
    both = (first, second)
    if any(one.probabilities is None for one in both):
        hits = [_hits(one).astype(np.float64) for one in both]
        draws = [
            (weights * (hits[1] - hits[0])).sum(1) / len(first)
            for weights in bootstrap.iter_draws(0, len(first))
        ]
        row = {"first": first.accuracy, "second": second.accuracy}
        return {"accuracy": _row(row, np.concatenate(draws))}
    scored = [_score(one) for one in both]
    names = figures.FIGURES if isinstance(first, Predictions) else label_draws.FIGURES
    whole = [one.figures(np.ones((1, len(first)))) for one in scored]
    columns = max(one.columns for one in scored)
    drawn: dict[str, list[np.ndarray]] = {name: [] for name in names}
    for weights in bootstrap.iter_draws(0, len(first), columns):
        ours, theirs = (one.figures(weights) for one in scored)
        for name in ours.keys() & theirs.keys():
            drawn[name].append(theirs[name] - ours[name])
    found = {}
    for name in names:
        values = [float(one[name][0]) for one in whole if name in one]
        if len(values) == 2 and all(map(math.isfinite, values)):
            row = {"first": values[0], "second": values[1]}
            found[name] = _row(row, np.concatenate(drawn[name]))
    return found


def _row(row: dict[str, float], draws: np.ndarray) -> dict[str, Any]:
    return row | {"difference": row["second"] - row["first"], "interval": bootstrap.interval(draws)}


def compare_pairs(differences: Sequence[float], overlap: float = 0.0) -> dict[str, Any]:
    """Test whether the mean of paired differences is 0, by Student's t.

    Args:
        differences: at least 2, such as of runs with the same seed.
        overlap: of the folds of a cross-validation the images tested on over those trained on:
            their training images overlap, and the variance of the mean is taken as the larger that
            Nadeau and Bengio give (Inference for the Generalization Error, Machine Learning 52,
            2003).

    Returns:
        `pairs`, `mean`, `standard_deviation`, the `interval` of the mean at 95 %, `p_value`, and
        `differs`, whether that is below LEVEL.
    """
    from scipy.stats import t

    count = len(differences)
    mean, deviation = float(np.mean(differences)), float(np.std(differences, ddof=1))
    error = deviation * math.sqrt(1 / count + overlap)
    half = float(t.ppf(1 - LEVEL / 2, count - 1)) * error
    if error > 0:
        p_value = 2 * float(t.sf(abs(mean) / error, count - 1))
    else:
        p_value = 1.0 if mean == 0 else 0.0
    return {
        "pairs": count,
        "mean": mean,
        "standard_deviation": deviation,
        "interval": [mean - half, mean + half],
        "p_value": p_value,
        "differs": p_value < LEVEL,
    }
