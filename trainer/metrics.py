"""From one prediction a sample to every figure of a result."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Answers:
    """What a model says of images: each sample once, in file order; arrays of shape (n,)."""

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
        """Share of the samples that were classified rightly."""
        return float(np.mean(self.predicted == self.target))


@dataclass(frozen=True)
class Predictions(Answers):
    """Answers, and how far they are from the truth."""

    loss: np.ndarray
    """cross entropy of the sample, without label smoothing, float32"""

    @property
    def mean_loss(self) -> float:
        """Mean over the samples."""
        return float(np.mean(self.loss, dtype=np.float64))


def per_class_results(predictions: Answers, class_names: Sequence[str]) -> dict[str, Any]:
    """Confusion matrix, the figures of each class and the worst class, by scikit-learn.

    A figure without a denominator (the precision of a class that was never predicted) is 0.

    Returns:
        `per_class`, `worst_class` (of equals the first; classes without samples do not compete)
        and `confusion` (rows true, columns predicted).
    """
    from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

    target, predicted = predictions.target, predictions.predicted
    labels = np.arange(len(class_names))
    confusion = confusion_matrix(target, predicted, labels=labels)
    precision, recall, f1, support = precision_recall_fscore_support(
        target, predicted, labels=labels, zero_division=0
    )
    correct = confusion.diagonal()
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
    return {"per_class": per_class, "worst_class": worst, "confusion": confusion.tolist()}
