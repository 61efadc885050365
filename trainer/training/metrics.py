"""Compute every figure of a result from one prediction for each sample."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from trainer.training.confusion import count_confusion

CALIBRATION_BINS = 15
MANY_CLASSES = 100
"""from which on probabilities are kept as float16"""
MOST_CLASSES_IN_FULL = 256
"""with a confusion matrix in results.json: it grows with their square"""


@dataclass(frozen=True)
class LabelledPredictions:
    """Predictions with the true classes: each sample once, in file order; arrays of shape (n,)."""

    target: np.ndarray
    """the true class, int64"""
    predicted: np.ndarray
    """the most probable class, int64"""
    probability: np.ndarray
    """the probability of the predicted class, float32"""

    def __len__(self) -> int:
        return len(self.target)

    @property
    def accuracy(self) -> float:
        """Share of the samples that were classified correctly."""
        return float(np.mean(self.predicted == self.target))


@dataclass(frozen=True)
class Predictions(LabelledPredictions):
    """Predictions with the loss of each sample."""

    loss: np.ndarray
    """cross entropy of the sample, without label smoothing, float32"""
    probabilities: np.ndarray | None = None
    """of all classes, where they were asked for: float32, or float16 from MANY_CLASSES on,
    (n, classes)"""

    @property
    def mean_loss(self) -> float:
        """Mean over the samples."""
        return float(np.mean(self.loss, dtype=np.float64))

    @property
    def calibration_error(self) -> float:
        """The expected calibration error, in 15 bins."""
        return calibration_bins(self.predicted == self.target, self.probability).error


@dataclass(frozen=True)
class CalibrationBins:
    """Probabilities against the share of correct predictions, in bins; arrays of shape (bins,)."""

    count: np.ndarray
    """images in each bin, int64"""
    confidence: np.ndarray
    """the mean probability of the predicted class there, NaN for an empty bin"""
    accuracy: np.ndarray
    """the share of correct predictions there, NaN for an empty bin"""

    @property
    def error(self) -> float:
        """The expected calibration error: the bins' mean gap, weighted by their images."""
        used = self.count > 0
        gaps = np.abs(self.confidence[used] - self.accuracy[used])
        return float(np.average(gaps, weights=self.count[used]))


def calibration_bins(correct: np.ndarray, probability: np.ndarray) -> CalibrationBins:
    """Sort predictions into 15 bins of equal width by their probability, as Guo et al. do.

    Bin m holds the probabilities above (m - 1) / 15 and up to m / 15. From Guo, Pleiss, Sun,
    Weinberger: On Calibration of Modern Neural Networks, 2017, arXiv 1706.04599, section 2.

    Args:
        correct: whether each prediction is right, bool (n,), n above 0.
        probability: of the predicted class, (n,).
    """
    place = calibration_places(probability)

    def sums(values: np.ndarray | None) -> np.ndarray:
        return np.bincount(place, values, CALIBRATION_BINS)

    count = sums(None)
    with np.errstate(invalid="ignore"):
        return CalibrationBins(count, sums(probability) / count, sums(correct) / count)


def calibration_places(probability: np.ndarray) -> np.ndarray:
    """Return the bin of each probability (n,), from 0, int64 (n,)."""
    place = np.ceil(probability * np.float64(CALIBRATION_BINS)).astype(np.int64) - 1
    return place.clip(0, CALIBRATION_BINS - 1)


def per_class_results(
    predictions: LabelledPredictions, class_names: Sequence[str]
) -> dict[str, Any]:
    """Compute the confusion matrix, the figures of each class and the worst class.

    A figure without a denominator (the precision of a class that was never predicted) is 0.

    Returns:
        `per_class`, `worst_class` (ties go to the first; classes without samples do not count)
        and `confusion` (rows true, columns predicted; None for more than MOST_CLASSES_IN_FULL).
    """
    target, predicted = predictions.target, predictions.predicted
    classes = len(class_names)
    # To the last bit those of scikit-learn's precision_recall_fscore_support, which takes a second
    # to import.
    support, claimed, correct = (
        np.bincount(some, minlength=classes)
        for some in (target, predicted, target[target == predicted])
    )
    precision, recall = correct / np.maximum(claimed, 1), correct / np.maximum(support, 1)
    f1 = 2 * correct / np.maximum(support + claimed, 1)
    per_class: list[dict[str, Any]] = [
        {
            "name": name,
            "support": int(support[label]),
            "correct": int(correct[label]),
            "accuracy": float(recall[label]),
            "precision": float(precision[label]),
            "recall": float(recall[label]),
            "f1": float(f1[label]),
        }
        for label, name in enumerate(class_names)
    ]
    present = [row for row in per_class if row["support"]]
    worst = min(present, key=lambda row: row["accuracy"])["name"]
    in_full = classes <= MOST_CLASSES_IN_FULL
    confusion = count_confusion(target, predicted, classes).matrix().tolist() if in_full else None
    return {"per_class": per_class, "worst_class": worst, "confusion": confusion}
