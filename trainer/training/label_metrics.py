"""Compute the figures of images that may have several labels each, or none.

Each class is a question of its own: has an image this label? The answer is a probability, and yes
where it reaches the threshold of the class.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from trainer.training import label_draws

Floats = npt.NDArray[np.float64]
Matrix = npt.NDArray[np.uint8]

USUAL_THRESHOLD = 0.5
"""where there are no validation images to choose another by"""


@dataclass(frozen=True, eq=False)
class LabelPredictions:
    """What was found of images with several labels: each image once, in file order.

    Args:
        target: 1 where an image has the label, uint8 (n, classes).
        probabilities: of each label, float32 (n, classes).
        loss: of each image, float32 (n,).
        thresholds: from which probability on a label is predicted, float64 (classes,); or of each
            image, (n, classes), where several networks have answered.
    """

    target: Matrix
    probabilities: npt.NDArray[np.float32]
    loss: npt.NDArray[np.float32]
    thresholds: Floats

    def __len__(self) -> int:
        return len(self.target)

    @property
    def predicted(self) -> Matrix:
        """1 where a label is predicted, uint8 (n, classes)."""
        return apply_thresholds(self.probabilities, self.thresholds)

    @property
    def accuracy(self) -> float:
        """Share of the images of which all labels are right and none is missing."""
        return float((self.predicted == self.target).all(1).mean())

    @property
    def mean_loss(self) -> float:
        """Mean over the images."""
        return float(np.mean(self.loss, dtype=np.float64))

    @property
    def average_precision(self) -> float | None:
        """The mean of the classes' average precisions (mAP); None if no image has a label."""
        return mean_of_known(average_precisions(self.target, self.probabilities))

    def with_thresholds(self, thresholds: Floats) -> LabelPredictions:
        """Return the same with other thresholds."""
        return replace(self, thresholds=thresholds)


def apply_thresholds(probabilities: npt.NDArray[np.floating[Any]], thresholds: Floats) -> Matrix:
    """Return 1 where a probability reaches the threshold of its class, uint8 (n, classes)."""
    return (probabilities.astype(np.float64) >= thresholds).astype(np.uint8)


def average_precisions(target: Matrix, probabilities: npt.NDArray[np.floating[Any]]) -> Floats:
    """Return the average precision of each class, (classes,); NaN where no image has the label.

    It is the mean, over the images with the label, of the precision among all images that are at
    least as probable: the area under the steps of the precision-recall curve, without interpolation
    (M. Zhu: Recall, Precision and Average Precision, 2004; scikit-learn's average_precision_score).
    """
    return np.array(
        [_average_precision(*column) for column in zip(target.T, probabilities.T, strict=True)]
    )


def _average_precision(target: Matrix, probabilities: npt.NDArray[np.floating[Any]]) -> float:
    hits, counts, _ = _cuts(target, probabilities)
    if not len(hits) or not hits[-1]:
        return float("nan")
    gained = np.diff(hits, prepend=0)
    return float((gained * (hits / counts)).sum() / hits[-1])


def roc_aucs(target: Matrix, probabilities: npt.NDArray[np.floating[Any]]) -> Floats:
    """Return the area under each class's ROC curve, (classes,); NaN where all images are alike.

    It is how often an image with the label is more probable than one without it; equally probable
    ones count half (scikit-learn's roc_auc_score).
    """
    return np.array([_roc_auc(*column) for column in zip(target.T, probabilities.T, strict=True)])


def _roc_auc(target: Matrix, probabilities: npt.NDArray[np.floating[Any]]) -> float:
    hits, counts, _ = _cuts(target, probabilities)
    if not len(hits) or not 0 < hits[-1] < counts[-1]:
        return float("nan")
    gained, others = np.diff(hits, prepend=0), np.diff(counts - hits, prepend=0)
    return float((others * (hits - gained / 2)).sum() / (hits[-1] * (counts[-1] - hits[-1])))


def _cuts(
    target: Matrix, probabilities: npt.NDArray[np.floating[Any]]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], Floats]:
    """Return, for each different probability from the highest on, what is at least as probable.

    Returns:
        Of those images how many have the label, and how many they are, and the probability.
    """
    order = np.argsort(-probabilities, kind="stable")
    ordered = probabilities[order].astype(np.float64)
    ends = np.flatnonzero(np.append(np.diff(ordered) != 0, True)) if len(ordered) else order
    return np.cumsum(target[order], dtype=np.int64)[ends], ends + 1, ordered[ends]


def _known(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def mean_of_known(values: Floats) -> float | None:
    """Return the mean of the numbers that are known, not NaN; None if there are none."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else None


def choose_thresholds(target: Matrix, probabilities: npt.NDArray[np.floating[Any]]) -> Floats:
    """Return the threshold of each class that has the highest F1 on these images, (classes,).

    Asked are 0.5 and the middles between neighbouring probabilities; of equal F1 the one nearest to
    0.5, where there is no image with the label 0.5 itself. After Z. C. Lipton, C. Elkan,
    B. Naryanaswamy: Thresholding Classifiers to Maximize F1 Score, 2014, arXiv 1402.1892.

    Args:
        target: of validation images, (n, classes).
        probabilities: of the same, (n, classes).
    """
    return np.array(
        [_choose_threshold(*column) for column in zip(target.T, probabilities.T, strict=True)]
    )


def _choose_threshold(target: Matrix, probabilities: npt.NDArray[np.floating[Any]]) -> float:
    hits, counts, cuts = _cuts(target, probabilities)
    if not len(hits) or not hits[-1]:
        return USUAL_THRESHOLD
    # A cut takes in its own probability, and not the next lower one.
    middles = (cuts + np.append(cuts[1:], 0.0)) / 2
    f1 = 2 * hits / (counts + hits[-1])
    usual = np.flatnonzero(cuts >= USUAL_THRESHOLD)
    at_usual = f1[usual[-1]] if len(usual) else 0.0
    if at_usual == f1.max():
        return USUAL_THRESHOLD
    best = middles[f1 == f1.max()]
    return float(best[np.abs(best - USUAL_THRESHOLD).argmin()])


def label_results(found: LabelPredictions, class_names: Sequence[str], seed: int) -> dict[str, Any]:
    """Return the figures of one set of images, for results.json, the overall ones with intervals.

    A figure without a denominator is 0, as the precision of a label that was never predicted; the
    average precision of a label that no image has is None, and does not count in the mean.

    Args:
        seed: of the run; the draws of the bootstrap follow from it.
    """
    predicted, target = found.predicted, found.target
    hits = (predicted & target).sum(0, np.int64)
    support, asked = target.sum(0, np.int64), predicted.sum(0, np.int64)
    precision, recall = _share(hits, asked), _share(hits, support)
    f1 = _share(2 * hits, support + asked)
    precisions = average_precisions(target, found.probabilities)
    areas = roc_aucs(target, found.probabilities)
    per_class = [
        {
            "name": name,
            "support": int(support[label]),
            "predicted": int(asked[label]),
            "correct": int(hits[label]),
            "accuracy": float(recall[label]),
            "average_precision": _known(precisions[label]),
            "roc_auc": _known(areas[label]),
            "threshold": None if found.thresholds.ndim == 2 else float(found.thresholds[label]),
            "precision": float(precision[label]),
            "recall": float(recall[label]),
            "f1": float(f1[label]),
        }
        for label, name in enumerate(class_names)
    ]
    intervals = label_draws.intervals(target, predicted, found.probabilities, seed)
    micro = _share(np.array([2 * hits.sum()]), np.array([support.sum() + asked.sum()]))
    return {
        "accuracy": found.accuracy,
        "subset_accuracy": found.accuracy,
        "loss": found.mean_loss,
        "samples": len(found),
        "average_precision": mean_of_known(precisions),
        "roc_auc": mean_of_known(areas),
        "macro_f1": float(f1.mean()),
        "micro_f1": float(micro[0]),
        "without_label": int((target == 0).all(1).sum()),
        "intervals": intervals | {"accuracy": intervals["subset_accuracy"]},
        "per_class": per_class,
        "worst_class": _worst(per_class),
        "confusion": None,
    }


def _share(part: npt.NDArray[np.int64], whole: npt.NDArray[np.int64]) -> Floats:
    return np.where(whole > 0, part / np.maximum(whole, 1), 0.0)


def _worst(per_class: Sequence[dict[str, Any]]) -> str | None:
    """Return the class of the lowest average precision, the first of equal ones."""
    known = [row for row in per_class if row["average_precision"] is not None]
    return min(known, key=lambda row: row["average_precision"])["name"] if known else None
