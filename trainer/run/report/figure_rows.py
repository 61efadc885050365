"""How the figures of a set of images are shown: their names, their intervals, what they mean."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from trainer.base.terminal import percent
from trainer.training.figures import FIGURES


class _Shown(NamedTuple):
    label: str
    meaning: str
    is_share: bool = False


_SHOWN = {
    "subset_accuracy": _Shown("All labels right", "images without a wrong or missing label", True),
    "accuracy": _Shown("Accuracy", "share of the images that are classified correctly", True),
    "top5_accuracy": _Shown(
        "Top-5 accuracy", "the class is among the five most probable ones", True
    ),
    "balanced_accuracy": _Shown(
        "Balanced accuracy", "mean of the classes' accuracies: each class counts the same", True
    ),
    "macro_f1": _Shown(
        "Macro F1", "mean of the classes' F1, which wrong answers of a class lower too", True
    ),
    "micro_f1": _Shown("Micro F1", "of all labels together", True),
    "roc_auc": _Shown(
        "ROC-AUC", "how often an image of a class has a higher probability of it than another one"
    ),
    "average_precision": _Shown(
        "Average precision", "mean precision among the images most probably of a class"
    ),
    "mcc": _Shown("Matthews' coefficient", "correlation of classes and answers; 0: chance"),
    "kappa": _Shown("Cohen's kappa", "agreement beyond that of chance; 0: chance"),
    "log_loss": _Shown("Log loss", "mean of -log of the class's probability; 0 is best"),
    "brier": _Shown("Brier score", "mean squared error of the probabilities; 0 is best"),
    "ece": _Shown(
        "Calibration error", "mean gap between probability and share of right answers", True
    ),
}


def figure_rows(figures: Mapping[str, Any]) -> list[dict[str, str]]:
    """Return a row for each figure that is defined: label, value, interval and meaning.

    Args:
        figures: as the part `test` of results.json; of older versions it has none of them.
    """
    intervals = figures.get("intervals", {})
    rows = []
    for name in FIGURES:
        if name in intervals and figures.get(name) is not None:
            low, high = (show(name, end) for end in intervals[name])
            row = {"label": _SHOWN[name].label, "value": show(name, figures[name])}
            rows.append(row | {"interval": f"{low} to {high}", "meaning": _SHOWN[name].meaning})
    return rows


def label_of(name: str) -> str:
    """Return how a figure is called in text."""
    return _SHOWN[name].label


def show(name: str, value: float) -> str:
    """Return a figure as text: of shares the per cent."""
    return percent(value) if _SHOWN[name].is_share else f"{value:.4f}"
