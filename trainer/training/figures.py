"""The figures of a set of images, from the probabilities of all classes, with their intervals.

They are those of scikit-learn, but for 100,000 images of 1,000 classes and a thousand draws of a
bootstrap too. docs/figures.md says what each of them means.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from trainer.base.portable_math import natural_logarithm
from trainer.training import bootstrap, confusion
from trainer.training.bootstrap import Weights
from trainer.training.metrics import CALIBRATION_BINS, Predictions, calibration_places
from trainer.training.ranking import MOST_EXACT, group_sums, linearise, rank

FIGURES = (
    "accuracy", "top5_accuracy", "balanced_accuracy", "macro_f1", "roc_auc", "average_precision",
    "mcc", "kappa", "log_loss", "brier", "ece",
)  # fmt: skip
"""in the order in which they are shown"""

LOWER_IS_BETTER = ("log_loss", "brier", "ece")

_TOP = 5
_BLOCK_SIZE = 2**20
"""probabilities that are looked at together"""

Array = npt.NDArray[np.float64]


def compute(predictions: Predictions, seed: int) -> dict[str, Any]:
    """Return all figures and their intervals.

    Args:
        predictions: with probabilities.
        seed: of the run; the draws of the bootstrap follow from it.

    Returns:
        FIGURES, None where one is undefined, and `intervals`: of each that is defined its lower and
        upper end at 95 %. top5_accuracy is undefined up to five classes, roc_auc where all images
        are of one class, mcc likewise, kappa where all answers are of that class too. `brier` is
        the sum over the classes, of two classes half of it.
    """
    scored = ScoredImages(predictions)
    whole = scored.figures(np.ones((1, len(predictions))))
    found: dict[str, float | None] = {name: _number(values[0]) for name, values in whole.items()}
    # These two to the last digit, as they stand elsewhere too.
    found |= {"accuracy": predictions.accuracy, "ece": predictions.calibration_error}
    draws = [
        scored.figures(weights)
        for weights in bootstrap.iter_draws(seed, len(predictions), scored.columns)
    ]
    intervals = {}
    for name in FIGURES:
        if (value := found.get(name)) is not None:
            values = np.concatenate([draw[name] for draw in draws])
            ends = bootstrap.interval(values, value if name == "ece" else None)
            if ends is not None:
                intervals[name] = _inside(ends, name)
    return {name: found.get(name) for name in FIGURES} | {"intervals": intervals}


class ScoredImages:
    """Images with the probabilities of all classes, prepared for figures of many draws of them.

    Attributes:
        columns: how many numbers a draw needs for each image.
    """

    def __init__(self, predictions: Predictions) -> None:
        probabilities = predictions.probabilities
        assert probabilities is not None
        self.target, self.predicted = predictions.target, predictions.predicted
        self.classes = probabilities.shape[1]
        self.probability = predictions.probability.astype(np.float64)
        self.places = calibration_places(predictions.probability)
        self.hits = (self.target == self.predicted).astype(np.float64)
        top, self.squares = _look_through(self.target, probabilities)
        self.top_hits = top if self.classes > _TOP else None
        self.losses = _log_losses(predictions, probabilities)
        exact = probabilities.size <= MOST_EXACT
        self.columns = self.classes if exact else 1
        self.ranking = (rank if exact else linearise)(self.target, probabilities)

    def figures(self, weights: Weights) -> dict[str, Array]:
        """Return each figure of each draw, (draws,); NaN where it is undefined.

        Args:
            weights: how often each image is in it, whole numbers (draws, n); the same sum in each.
        """
        total = weights.sum(1)
        right = weights * self.hits
        support = group_sums(weights, self.target, self.classes)
        predicted = group_sums(weights, self.predicted, self.classes)
        correct = group_sums(right, self.target, self.classes)
        promised = group_sums(weights * self.probability, self.places, CALIBRATION_BINS)
        kept = group_sums(right, self.places, CALIBRATION_BINS)
        area, precision = self.ranking.figures(weights)
        found = {
            "accuracy": right.sum(1) / total,
            "balanced_accuracy": confusion.balanced_accuracy(support, correct),
            "macro_f1": confusion.macro_f1(support, predicted, correct),
            "roc_auc": area,
            "average_precision": precision,
            "mcc": confusion.matthews_coefficient(support, predicted, correct),
            "kappa": confusion.cohens_kappa(support, predicted, correct),
            "log_loss": (weights * self.losses).sum(1) / total,
            "brier": (weights * self.squares).sum(1) / total,
            "ece": np.abs(promised - kept).sum(1) / total,
        }
        if self.top_hits is not None:
            found["top5_accuracy"] = (weights * self.top_hits).sum(1) / total
        return found


def _log_losses(predictions: Predictions, probabilities: npt.NDArray[np.floating]) -> Array:
    """Return minus the logarithm of the probability of each image's class, float64 (n,).

    float16 has nothing between 0 and 6e-8; the losses themselves are known better.
    """
    if probabilities.dtype == np.float16:
        return predictions.loss.astype(np.float64)
    own = probabilities[np.arange(len(predictions)), predictions.target].astype(np.float64)
    return -natural_logarithm(own.clip(np.finfo(np.float64).eps, 1))


def _look_through(
    target: npt.NDArray[np.int64], probabilities: npt.NDArray[np.floating]
) -> tuple[Array, Array]:
    """Return whether each image's class is among the five most probable, and its squared error.

    Of classes with equal probabilities the last ones come first, as in `top_k_accuracy_score`.
    """
    count, classes = probabilities.shape
    among, squares = np.empty(count), np.empty(count)
    numbers = np.arange(classes)
    rows = max(1, _BLOCK_SIZE // classes)
    for begin in range(0, count, rows):
        block = slice(begin, begin + rows)
        values, own = probabilities[block], target[block]
        # Numbers that are not negative have the order of their bits.
        order = values.view(np.uint16) if values.dtype == np.float16 else values
        mine = np.take_along_axis(order, own[:, None], 1)
        before = (order > mine).sum(1)
        before += ((order == mine) & (numbers > own[:, None])).sum(1)
        among[block] = before < _TOP
        exact = values.astype(np.float64)
        exact[np.arange(len(own)), own] -= 1
        squares[block] = np.square(exact, out=exact).sum(1)
    return among, squares / 2 if classes == 2 else squares


def _inside(ends: list[float], name: str) -> list[float]:
    """Return the ends, none below 0 where the figure cannot be."""
    return ends if name in ("mcc", "kappa") else [max(0.0, end) for end in ends]


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
