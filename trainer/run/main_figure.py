"""Which figure judges a run, as the part `test` of its results.json says."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def has_several_labels(test: Mapping[str, Any]) -> bool:
    """Return whether the images may have several labels, rather than one class each."""
    return "subset_accuracy" in test


def main_figure(test: Mapping[str, Any]) -> str:
    """Return its key, the same for all images and for a class: accuracy, or of labels the mAP."""
    return "average_precision" if has_several_labels(test) else "accuracy"
