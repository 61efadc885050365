"""Figures of many draws of images that may have several labels: what intervals are made of.

Of many images each draw's ranking figures are of first order, as `ranking` says.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from trainer.training import bootstrap
from trainer.training.bootstrap import Weights
from trainer.training.ranking import MOST_EXACT, linearise_labels

FIGURES = ("average_precision", "roc_auc", "subset_accuracy", "macro_f1", "micro_f1")
"""those that have intervals"""

Floats = npt.NDArray[np.float64]
Matrix = npt.NDArray[np.uint8]


def intervals(
    target: Matrix, predicted: Matrix, probabilities: npt.NDArray[np.floating[Any]], seed: int
) -> dict[str, list[float]]:
    """Return the ends of the interval at 95 % of each figure that is defined.

    Args:
        target, predicted: 1 where an image has a label and where that is predicted, (n, labels).
        probabilities: of each label, (n, labels).
        seed: of the run; the draws of the bootstrap follow from it.
    """
    scored = ScoredLabels(target, predicted, probabilities)
    draws = [scored.figures(weights) for weights in bootstrap.iter_draws(seed, len(target))]
    found = {}
    for name in FIGURES:
        ends = bootstrap.interval(np.concatenate([draw[name] for draw in draws]))
        if ends is not None:
            found[name] = ends
    return found


class ScoredLabels:
    """Images with the probabilities of all labels, prepared for figures of many draws of them.

    Attributes:
        columns: how many numbers a draw needs for each image at a time.
    """

    columns = 1

    def __init__(
        self, target: Matrix, predicted: Matrix, probabilities: npt.NDArray[np.floating[Any]]
    ) -> None:
        self.right = (target == predicted).all(1).astype(np.float64)
        self.hits = (target & predicted).astype(np.float64)
        self.either = target.astype(np.float64) + predicted
        exact = probabilities.size <= MOST_EXACT
        ranking = _rank_labels if exact else linearise_labels
        self.ranking = ranking(target, probabilities)

    def figures(self, weights: Weights) -> dict[str, Floats]:
        """Return each figure of each draw, (draws,); NaN where it is undefined.

        Args:
            weights: how often each image is in it, whole numbers (draws, n); the same sum in each.
        """
        both, either = weights @ self.hits, weights @ self.either
        area, precision = self.ranking.figures(weights)
        return {
            "average_precision": precision,
            "roc_auc": area,
            "subset_accuracy": weights @ self.right / weights.sum(1),
            "macro_f1": (2 * both / np.maximum(either, 1)).mean(1),
            "micro_f1": 2 * both.sum(1) / np.maximum(either.sum(1), 1),
        }


@dataclass(frozen=True, eq=False)
class _RankedLabel:
    """The images in the order of a label's probability, the highest first.

    Args:
        order: their positions, int64 (n,).
        target: 1 where they have the label, in this order, float64 (n,).
        ends: the last place of each different probability, int64 (k,).
    """

    order: npt.NDArray[np.int64]
    target: Floats
    ends: npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class _RankedLabels:
    labels: list[_RankedLabel]

    def figures(self, weights: Weights) -> tuple[Floats, Floats]:
        """Return ROC-AUC and average precision of each draw, (draws,); NaN where undefined."""
        draws = len(weights)
        areas, with_area = np.zeros(draws), np.zeros(draws)
        precisions, with_precision = np.zeros(draws), np.zeros(draws)
        for one in self.labels:
            ordered = weights[:, one.order]
            hits = np.cumsum(ordered * one.target, axis=1)[:, one.ends]
            counts = np.cumsum(ordered, axis=1)[:, one.ends]
            gained = np.diff(hits, axis=1, prepend=0)
            others = np.diff(counts - hits, axis=1, prepend=0)
            positives = hits[:, -1]
            pairs = positives * (counts[:, -1] - positives)
            precision = (gained * hits / np.maximum(counts, 1)).sum(1)
            precisions += precision / np.maximum(positives, 1)
            with_precision += positives > 0
            areas += (others * (hits - gained / 2)).sum(1) / np.maximum(pairs, 1)
            with_area += pairs > 0
        with np.errstate(invalid="ignore"):
            return areas / with_area, precisions / with_precision


def _rank_labels(target: Matrix, probabilities: npt.NDArray[np.floating[Any]]) -> _RankedLabels:
    ranked = []
    for column, values in zip(target.T, probabilities.T, strict=True):
        order = np.argsort(-values, kind="stable")
        ends = np.flatnonzero(np.append(np.diff(values[order]) != 0, True))
        ranked.append(_RankedLabel(order, column[order].astype(np.float64), ends))
    return _RankedLabels(ranked)
