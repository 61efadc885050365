"""Divide images into folds of whole groups, each class spread as evenly as groups allow."""

from __future__ import annotations

import warnings
from itertools import pairwise

import numpy as np
import numpy.typing as npt

Indices = npt.NDArray[np.int64]

_MOST_FOR_SCIKIT_LEARN = 500
"""groups: 10,000 take it half a minute, and every process divides them at every start"""


def divide_groups(folds: int, labels: Indices, groups: Indices, drawn: int) -> Indices:
    """Return the fold of each image, from 0, int64 (n,); where groups are few some may be empty.

    Up to 500 groups are divided by scikit-learn's StratifiedGroupKFold, more of them by
    `_deal_groups`.

    Args:
        labels: the class of each image, int64 (n,).
        groups: the number of its group, int64 (n,).
        drawn: a random number, which decides between folds that are as good.
    """
    if len(np.unique(groups)) > _MOST_FOR_SCIKIT_LEARN:
        return _deal_groups(folds, labels, groups, drawn)
    from sklearn.model_selection import StratifiedGroupKFold  # as slow to import as torch

    divided = StratifiedGroupKFold(folds, shuffle=True, random_state=drawn % 2**32)
    fold_of = np.empty(len(labels), np.int64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of classes with fewer images than folds
        for fold, (_, inside) in enumerate(divided.split(labels, labels, groups)):
            fold_of[inside] = fold
    return fold_of


def _deal_groups(folds: int, labels: Indices, groups: Indices, drawn: int) -> Indices:
    """Return the fold of each image, int64 (n,).

    The largest groups are dealt first, those of one size in random order. Each goes where it keeps
    the sum of the squares of all folds' shares of each class lowest; of equal folds to the one with
    the fewest images. This takes whole numbers, so that every machine finds the same.
    """
    classes = int(labels.max()) + 1
    numbers = np.unique(groups, return_inverse=True)[1]
    pairs, counts = np.unique(numbers * classes + labels, return_counts=True)
    begins = np.flatnonzero(np.diff(pairs // classes, prepend=-1, append=numbers.max() + 1))
    rows = list(pairwise(begins.tolist()))
    sizes = np.bincount(numbers)
    shuffled = np.random.Generator(np.random.Philox(key=drawn)).permutation(len(rows))
    order = shuffled[np.argsort(-sizes[shuffled], kind="stable")]
    # A share's square in whole numbers; the sum over the classes stays below 2**62.
    totals = np.bincount(labels, minlength=classes).clip(min=1)
    weights = (2**62 // classes // totals**2).clip(min=1)
    of_classes, costs = pairs % classes, counts * weights[pairs % classes]
    dealt = np.zeros((classes, folds), np.int64)
    held = np.zeros(folds, np.int64)
    fold_of = np.empty(len(rows), np.int64)
    for number in order.tolist():
        row = slice(*rows[number])
        which = of_classes[row]
        added = costs[row] @ dealt[which]
        best = np.flatnonzero(added == added.min())
        fold = int(best[held[best].argmin()])
        dealt[which, fold] += counts[row]
        held[fold] += sizes[number]
        fold_of[number] = fold
    chosen: Indices = fold_of[numbers]
    return chosen
