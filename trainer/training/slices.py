"""Accuracy by a property of the images: where a classifier is worse than its mean says."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from trainer.training.label_metrics import LabelPredictions
from trainer.training.metrics import LabelledPredictions

FEW_IMAGES = 30
"""a slice of fewer says little, and is marked as small"""

_NORMAL_QUANTILE = 1.959963984540054
"""of 97.5 %"""


def slice_accuracies(
    answers: LabelledPredictions | LabelPredictions, columns: Mapping[str, Sequence[str]]
) -> dict[str, list[dict[str, Any]]]:
    """Return the accuracy of each slice, of every column the worst slice first.

    Args:
        columns: by name the value of each image, of which those with one value are a slice.

    Returns:
        For each column rows of `value`, `samples`, `correct`, `accuracy`, its `interval` at 95 % by
        Wilson, and `small`, whether there are fewer than FEW_IMAGES. Of equal accuracies the slice
        of more images comes first.
    """
    right = answers.predicted == answers.target
    if right.ndim > 1:  # of several labels all have to be right
        right = right.all(1)
    found = {}
    for name, values in columns.items():
        distinct, places = np.unique(np.asarray(values, dtype=np.str_), return_inverse=True)
        samples = np.bincount(places, minlength=len(distinct))
        correct = np.bincount(places[right], minlength=len(distinct))
        rows: list[dict[str, Any]] = [
            {
                "value": str(value),
                "samples": int(count),
                "correct": int(hits),
                "accuracy": int(hits) / int(count),
                "interval": wilson_interval(int(hits), int(count)),
                "small": bool(count < FEW_IMAGES),
            }
            for value, count, hits in zip(distinct, samples, correct, strict=True)
        ]
        found[name] = sorted(rows, key=lambda row: (row["accuracy"], -row["samples"], row["value"]))
    return found


def wilson_interval(correct: int, count: int) -> list[float]:
    """Return the interval of a share at 95 %, which holds for few images and shares of 0 and 1 too.

    Wilson: Probable Inference, the Law of Succession, and Statistical Inference, Journal of the
    American Statistical Association 22, 1927.
    """
    share, square = correct / count, _NORMAL_QUANTILE**2 / count
    middle = (share + square / 2) / (1 + square)
    half = math.sqrt(square * share * (1 - share) + square * square / 4) / (1 + square)
    # At the ends only rounding keeps them from 0 and 1.
    low, high = max(0.0, middle - half), min(1.0, middle + half)
    return [0.0 if correct == 0 else low, 1.0 if correct == count else high]
