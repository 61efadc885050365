"""How well the probability of a class ranks its images above the others: ROC-AUC and precision.

Each class is taken against the rest, and the figure is the mean over the classes that have images
(of ROC-AUC also over those that are not all images). Images of one probability are one step of the
curves, as in scikit-learn's `roc_auc_score` and `average_precision_score`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from trainer.training.bootstrap import Weights

MOST_EXACT = 20_000
"""probabilities, such as those of 2,000 images of 10 classes, of which each draw of a bootstrap
ranks all again; with more that would take seconds"""

Array = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]

_LARGEST_FLOAT16 = int(np.float16(1).view(np.uint16))


def group_sums(weights: Weights, groups: Indices, count: int) -> Array:
    """Return the sum of weights (draws, n) in each of `count` groups (n,): (draws, count)."""
    rows = len(weights)
    places = np.arange(0, rows * count, count)[:, None] + groups
    sums = np.bincount(places.ravel(), weights.ravel(), rows * count)
    return sums.reshape(rows, count).astype(np.float64, copy=False)


@dataclass(frozen=True, eq=False)
class Ranks:
    """Where each image stands among all by its own class's probability, from the highest down.

    Args:
        order: of the images by each class's probability, int64 (classes, n).
        above: how many have a higher probability of the image's class than it has, int64 (n,).
        not_below: how many have the same or a higher one.
        own_order: the images by their classes, and of each class by its probability.
        own_above, own_not_below: the same counts in this order, of images of classes before too.
    """

    target: Indices
    classes: int
    order: Indices
    above: Indices
    not_below: Indices
    own_order: Indices
    own_above: Indices
    own_not_below: Indices

    def figures(self, weights: Weights) -> tuple[Array, Array]:
        """Return ROC-AUC and average precision of each draw, (draws,); NaN where undefined.

        Args:
            weights: how often each image counts, whole numbers (draws, n).
        """
        draws, target = len(weights), self.target
        running = np.zeros((draws, self.classes, len(target) + 1))
        np.cumsum(weights[:, self.order], axis=2, out=running[:, :, 1:])
        own_running = np.zeros((draws, len(target) + 1))
        np.cumsum(weights[:, self.own_order], axis=1, out=own_running[:, 1:])
        positives = group_sums(weights, target, self.classes)
        before = np.cumsum(positives, axis=1) - positives
        above = running[:, target, self.above]
        not_below = running[:, target, self.not_below]
        own_above = own_running[:, self.own_above] - before[:, target]
        own_not_below = own_running[:, self.own_not_below] - before[:, target]

        negatives = weights.sum(1)[:, None] - positives
        lost = (above - own_above + not_below - own_not_below) / 2
        pairs = positives * negatives
        auc = 1 - group_sums(weights * lost, target, self.classes) / np.maximum(pairs, 1)
        precision = own_not_below / np.maximum(not_below, 1)
        total = group_sums(weights * precision, target, self.classes)
        average = total / np.maximum(positives, 1)
        return _mean(auc, pairs > 0), _mean(average, positives > 0)


def rank(target: Indices, probabilities: npt.NDArray[np.floating]) -> Ranks:
    """Rank images, of classes (n,), by the probabilities (n, classes) of each class."""
    count, classes = probabilities.shape
    scores = -probabilities.T
    order = np.argsort(scores, axis=1, kind="stable")
    ordered = np.take_along_axis(scores, order, axis=1)
    own = -probabilities[np.arange(count), target]
    above, not_below = np.empty(count, np.int64), np.empty(count, np.int64)
    own_order = np.lexsort((own, target))
    own_above, own_not_below = np.empty(count, np.int64), np.empty(count, np.int64)
    begin = 0
    for label, size in enumerate(np.bincount(target, minlength=classes).tolist()):
        members = own_order[begin : begin + size]
        inside = own[members]
        above[members] = np.searchsorted(ordered[label], inside, "left")
        not_below[members] = np.searchsorted(ordered[label], inside, "right")
        own_above[members] = begin + np.searchsorted(inside, inside, "left")
        own_not_below[members] = begin + np.searchsorted(inside, inside, "right")
        begin += size
    return Ranks(target, classes, order, above, not_below, own_order, own_above, own_not_below)


@dataclass(frozen=True, eq=False)
class LinearRanking:
    """ROC-AUC and average precision, and what each image adds to them where it comes again.

    A draw's figure is the figure plus the sum of what its images add: a step of first order, whose
    error falls with the number of images as the square of its own size does. It is the empirical
    influence function, chapter 22 of Efron and Tibshirani, 1993; of ROC-AUC it is made of the
    placements of DeLong, DeLong, Clarke-Pearson: Comparing the Areas under Two or More Correlated
    Receiver Operating Characteristic Curves, Biometrics 44, 1988.

    Args:
        roc_auc, average_precision: NaN where undefined.
        of_roc_auc, of_average_precision: what each image adds, (n,); their sum is 0.
    """

    roc_auc: float
    average_precision: float
    of_roc_auc: Array
    of_average_precision: Array

    def figures(self, weights: Weights) -> tuple[Array, Array]:
        """As `Ranks.figures`, of draws of as many images."""
        return (
            (self.roc_auc + (weights * self.of_roc_auc).sum(1)).clip(0, 1),
            (self.average_precision + (weights * self.of_average_precision).sum(1)).clip(0, 1),
        )


def linearise(target: Indices, probabilities: npt.NDArray[np.floating]) -> LinearRanking:
    """Return both figures of many images and classes, as `rank` does of fewer.

    Probabilities of float16 have so few values that they are counted instead of sorted.
    """
    order = np.argsort(target, kind="stable")
    sizes = np.bincount(target, minlength=probabilities.shape[1])
    return _linearise(np.split(order, np.cumsum(sizes)[:-1]), probabilities)


def linearise_labels(
    target: npt.NDArray[np.uint8], probabilities: npt.NDArray[np.floating]
) -> LinearRanking:
    """Return the same of images with several labels: 1 where one has a label, (n, labels)."""
    return _linearise([np.flatnonzero(column) for column in target.T], probabilities)


def _linearise(
    members: Sequence[Indices], probabilities: npt.NDArray[np.floating]
) -> LinearRanking:
    """Return both figures, given the positions of the images of each class."""
    count, classes = probabilities.shape
    areas, precisions = np.full(classes, np.nan), np.full(classes, np.nan)
    of_area, of_precision = np.zeros(count), np.zeros(count)
    at_once = 64
    for begin in range(0, classes, at_once):
        columns = np.ascontiguousarray(probabilities[:, begin : begin + at_once].T)
        for label, column in enumerate(columns, start=begin):
            own = members[label]
            size = len(own)
            if not size:
                continue
            levels, levels_count = _levels(column)
            own_levels = levels[own]
            everyone = np.bincount(levels, minlength=levels_count)
            positive = np.bincount(own_levels, minlength=levels_count)
            not_below = np.cumsum(everyone[::-1])[::-1]
            own_not_below = np.cumsum(positive[::-1])[::-1]
            precision = own_not_below / np.maximum(not_below, 1)
            average = float(precision[own_levels].sum()) / size
            precisions[label] = average
            each = positive / np.maximum(not_below, 1)
            with_it = (np.cumsum(each) + precision - average) / size
            lost = np.cumsum(each * precision) / size
            of_precision -= lost[levels]
            of_precision[own] += with_it[own_levels]
            rest = count - size
            if rest:
                negative = everyone - positive
                below = (np.cumsum(negative) - negative / 2) / rest
                area = float(below[own_levels].sum()) / size
                areas[label] = area
                higher = ((own_not_below - positive / 2) / size - area) / rest
                of_area += higher[levels]
                of_area[own] += (below[own_levels] - area) / size - higher[own_levels]
    defined = max(1, int(np.isfinite(areas).sum())), max(1, int(np.isfinite(precisions).sum()))
    return LinearRanking(
        float(_mean(areas[None], np.isfinite(areas)[None])[0]),
        float(_mean(precisions[None], np.isfinite(precisions)[None])[0]),
        of_area / defined[0],
        of_precision / defined[1],
    )


def _levels(column: npt.NDArray[np.floating]) -> tuple[Indices, int]:
    """Return numbers that rise with the probabilities (n,), int64 (n,), and how many there are."""
    if column.dtype == np.float16:
        # Numbers that are not negative have the order of their bits.
        return column.view(np.uint16).astype(np.int64), _LARGEST_FLOAT16 + 2
    values, levels = np.unique(column, return_inverse=True)
    return levels, len(values)


def _mean(values: Array, defined: npt.NDArray[np.bool_]) -> Array:
    """Return the mean of each row over what is defined; NaN where nothing is."""
    count = defined.sum(1)
    found = np.where(defined, values, 0.0).sum(1) / np.maximum(count, 1)
    return np.where(count > 0, found, np.nan)
