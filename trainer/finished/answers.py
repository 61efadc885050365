"""Say what a model's probabilities mean: a class, several labels, or that it is not sure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from trainer.base.errors import UserError
from trainer.finished.separate_answers import Classifier
from trainer.finished.trained_model import TrainedModel
from trainer.training.label_metrics import apply_thresholds

Probabilities = npt.NDArray[np.float32]
"""of one image, (classes,)"""


def ask(classifier: Classifier, pixels: Any, names: Sequence[str]) -> Probabilities:
    """Return the probabilities of images, those of each whatever the others are: (n, classes).

    Args:
        pixels: a tensor, uint8 (n, channels, height, width), of at most a block.
        names: of the images, for messages.

    Raises:
        UserError: those of an image are not finite.
    """
    probabilities: Probabilities = classifier.probabilities(pixels).numpy()
    is_finite = np.isfinite(probabilities).all(1)
    if not is_finite.all():
        raise UserError(
            f"{names[int(is_finite.argmin())]}: the model gives no probabilities for it, as its "
            "logits are not finite"
        )
    return probabilities


def name(
    stored: TrainedModel, probabilities: Probabilities, min_confidence: float = 0.0
) -> dict[str, Any]:
    """Return `class` and `probability`: of several labels lists of those that are predicted.

    Args:
        min_confidence: where the most probable class is less probable, `class` is None.
    """
    if stored.thresholds is not None:
        chosen = np.flatnonzero(apply_thresholds(probabilities, np.array(stored.thresholds)))
        return {
            "class": [stored.class_names[label] for label in chosen],
            "probability": [shortest(value) for value in probabilities[chosen]],
        }
    best = int(probabilities.argmax())
    is_sure = bool(probabilities[best] >= np.float32(min_confidence))
    return {
        "class": stored.class_names[best] if is_sure else None,
        "probability": shortest(probabilities[best]),
    }


def by_class(class_names: Sequence[str], probabilities: Probabilities) -> dict[str, float]:
    """Return the probability of each class, by its name."""
    return dict(zip(class_names, map(shortest, probabilities), strict=True))


def check_min_confidence(stored: TrainedModel, min_confidence: float) -> None:
    """Raise a `UserError` if a threshold is asked of a model that has one for each label."""
    if stored.thresholds is not None and min_confidence:
        raise UserError(
            "--min_confidence: must be left out for a model of several labels, which has a "
            f"threshold for each label, found {min_confidence}"
        )


def shortest(value: np.float32) -> float:
    """Return the float with the shortest decimal that stands for a float32 number."""
    return float(str(value))
