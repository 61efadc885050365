"""Count which class was predicted as which, and the figures that follow from these counts alone.

They are those of scikit-learn, which takes a second to import. Counts are integers, so that the
figures are the same wherever they are computed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Counts = npt.NDArray[np.int64 | np.float64]


def balanced_accuracy(support: Counts, correct: Counts) -> Counts:
    """Return the mean recall over the classes that have images, as `balanced_accuracy_score`.

    Args:
        support: the images of each class, (..., classes), some above 0.
        correct: those that were predicted as it, likewise.

    Returns:
        float64 (...).
    """
    recall = correct / np.maximum(support, 1)
    found: Counts = recall.sum(-1) / (support > 0).sum(-1)
    return found


def macro_f1(support: Counts, predicted: Counts, correct: Counts) -> Counts:
    """Return the mean F1 over the classes that have images or predictions, as `f1_score`.

    Args:
        predicted: the images that were predicted as each class; all as of `balanced_accuracy`.
    """
    both = support + predicted
    f1 = 2 * correct / np.maximum(both, 1)
    found: Counts = f1.sum(-1) / (both > 0).sum(-1)
    return found


def matthews_coefficient(support: Counts, predicted: Counts, correct: Counts) -> Counts:
    """Return Matthews' correlation coefficient of all classes, as `matthews_corrcoef`.

    0 where all images were predicted as one class, and NaN where all are of one class. From
    Gorodkin: Comparing two K-category assignments by a K-category correlation coefficient,
    Computational Biology and Chemistry 28, 2004.
    """
    of_images, of_predictions, between = _covariances(support, predicted, correct)
    denominator = np.sqrt(of_images) * np.sqrt(of_predictions)
    found = np.where(denominator > 0, between / np.maximum(denominator, 1), 0.0)
    return np.where(of_images > 0, found, np.nan)


def cohens_kappa(support: Counts, predicted: Counts, correct: Counts) -> Counts:
    """Return Cohen's kappa: the agreement beyond that of chance, as `cohen_kappa_score`.

    NaN where images and predictions are all of one class. From Cohen: A Coefficient of Agreement
    for Nominal Scales, Educational and Psychological Measurement 20, 1960.
    """
    total = support.sum(-1).astype(np.float64)
    by_chance = _dot(support, predicted)
    disagreement = total * total - by_chance
    agreement = total * correct.sum(-1) - by_chance
    return np.where(disagreement > 0, agreement / np.maximum(disagreement, 1), np.nan)


def _covariances(
    support: Counts, predicted: Counts, correct: Counts
) -> tuple[Counts, Counts, Counts]:
    """Return the square of the number of images times the covariances of the two assignments."""
    total = support.sum(-1).astype(np.float64)
    return (
        total * total - _dot(support, support),
        total * total - _dot(predicted, predicted),
        total * correct.sum(-1) - _dot(support, predicted),
    )


def _dot(first: Counts, second: Counts) -> Counts:
    found: Counts = (first.astype(np.float64) * second).sum(-1)
    return found


@dataclass(frozen=True)
class Confusion:
    """The non-empty cells of a confusion matrix, row by row; arrays of shape (cells,).

    With many classes there are at most as many as images, while the matrix would fill the memory.
    """

    classes: int
    true: np.ndarray
    """the true class, int64"""
    predicted: np.ndarray
    """the predicted class, int64"""
    count: np.ndarray
    """the images, int64, above 0"""

    def matrix(self, chosen: np.ndarray | None = None) -> np.ndarray:
        """Return the matrix of counts, int32: rows true, columns predicted.

        Args:
            chosen: its classes, in rising order; None: all.
        """
        chosen = np.arange(self.classes) if chosen is None else chosen
        place = np.full(self.classes, -1)
        place[chosen] = np.arange(len(chosen))
        rows, columns = place[self.true], place[self.predicted]
        inside = (rows >= 0) & (columns >= 0)
        # The system keeps no page for zeros that are never written to.
        found = np.zeros((len(chosen), len(chosen)), np.int32)
        found[rows[inside], columns[inside]] = self.count[inside]
        return found

    def rows(self, begin: int, end: int) -> np.ndarray:
        """Return some rows of the matrix, int32 (end - begin, classes)."""
        inside = slice(*np.searchsorted(self.true, (begin, end)))
        found = np.zeros((end - begin, self.classes), np.int32)
        found[self.true[inside] - begin, self.predicted[inside]] = self.count[inside]
        return found

    @property
    def balanced_accuracy(self) -> float:
        """The mean recall over the classes that have images."""
        return float(balanced_accuracy(self.support(), self.correct()))

    @property
    def macro_f1(self) -> float:
        """The mean F1 over the classes that have images or predictions."""
        predicted = np.zeros(self.classes, np.int64)
        np.add.at(predicted, self.predicted, self.count)
        return float(macro_f1(self.support(), predicted, self.correct()))

    def correct(self) -> np.ndarray:
        """Return how many images of each class were predicted as it, int64 (classes,)."""
        found = np.zeros(self.classes, np.int64)
        right = self.true == self.predicted
        found[self.true[right]] = self.count[right]
        return found

    def support(self) -> np.ndarray:
        """Return the number of images of each true class, int64 (classes,)."""
        found = np.zeros(self.classes, np.int64)
        np.add.at(found, self.true, self.count)
        return found

    def mistakes(self) -> np.ndarray:
        """Return the positions of the cells of wrong predictions, those of most images first."""
        wrong = np.flatnonzero(self.true != self.predicted)
        return wrong[np.argsort(-self.count[wrong], kind="stable")]


def count_confusion(target: np.ndarray, predicted: np.ndarray, classes: int) -> Confusion:
    """Count how often each class was predicted as each, from classes of shape (n,)."""
    cells, count = np.unique(target * np.int64(classes) + predicted, return_counts=True)
    return Confusion(classes, *np.divmod(cells, classes), count)
