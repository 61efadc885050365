"""Labels of images that may have several each, or none: a matrix of 0 and 1.

Labels are integers (n,), the class of each image, or with `data.multi_label` uint8 (n, classes),
1 where an image has the label. What needs one class for each image, such as a stratified draw,
takes its *stratum*: the rarest of its labels, as the others are frequent enough to be spread evenly
by themselves (Sechidis, Tsoumakas, Vlahavas: On the Stratification of Multi-label Data, 2011,
distribute the labels in that order too). Images without a label are a stratum of their own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Labels = npt.NDArray[np.integer[Any]]


def strata(labels: Labels, least: int = 1) -> npt.NDArray[np.int64]:
    """Return one class for each image, int64 (n,); `classes` for an image without a label.

    Args:
        labels: of either form; of the first they are the classes.
        least: a stratum of fewer images is put to those without a label.
    """
    if labels.ndim == 1:
        return labels.astype(np.int64)
    classes = labels.shape[1]
    counts = count_images(labels, classes)
    rarest_first = np.argsort(counts, kind="stable")
    by_rarity = labels[:, rarest_first] > 0
    found = np.where(by_rarity.any(1), rarest_first[by_rarity.argmax(1)], classes)
    is_small = np.bincount(found, minlength=classes + 1) < least
    large: npt.NDArray[np.int64] = np.where(is_small[found], classes, found)
    return large


def count_images(labels: Labels, classes: int) -> npt.NDArray[np.int64]:
    """Return how many images have each label, int64 (classes,), of labels of either form."""
    found: npt.NDArray[np.int64]
    found = np.bincount(labels, minlength=classes) if labels.ndim == 1 else labels.sum(0, np.int64)
    return found


def count_by_fold(
    labels: Labels, fold_of: npt.NDArray[np.int64], folds: int
) -> npt.NDArray[np.int64]:
    """Return how many images of each fold have each label, int64 (folds, classes)."""
    if labels.ndim == 1:
        classes = int(labels.max(initial=-1)) + 1
        cells = np.bincount(fold_of * classes + labels, minlength=folds * classes)
        return cells.reshape(folds, classes)
    columns = [np.bincount(fold_of[column > 0], minlength=folds) for column in labels.T]
    return np.stack(columns, axis=1)


def first_lacking(labels: Labels, kept: npt.NDArray[Any]) -> int | None:
    """Return the first label that some images have and none of those at `kept`; None if none."""
    classes = labels.shape[1] if labels.ndim == 2 else int(labels.max(initial=-1)) + 1
    counts = count_images(labels, classes)
    lost = np.flatnonzero((counts > 0) & (count_images(labels[kept], classes) == 0))
    return int(lost[0]) if len(lost) else None


def with_label(labels: Labels, label: int) -> npt.NDArray[np.int64]:
    """Return the positions of the images that have a label, int64 (k,)."""
    return np.flatnonzero(labels[:, label] if labels.ndim == 2 else labels == label)


def of_names(rows: Sequence[Sequence[str]], class_names: Sequence[str]) -> npt.NDArray[np.uint8]:
    """Return the matrix of labels that are given by the names of their classes."""
    numbers = {name: number for number, name in enumerate(class_names)}
    found = np.zeros((len(rows), len(class_names)), np.uint8)
    for row, names in enumerate(rows):
        for name in names:
            found[row, numbers[name]] = 1
    return found


def names_of(row: npt.NDArray[Any], class_names: Sequence[str]) -> list[str]:
    """Return the names of the labels that one image has, from its row of the matrix."""
    return [class_names[label] for label in np.flatnonzero(row).tolist()]
