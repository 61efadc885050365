"""Temperature scaling: one number that makes a network as sure of its answers as it is right.

Logits are divided by the temperature under which the validation images' classes are most probable:
above 1 for a network that is too sure. The answers stay the same. From Guo, Pleiss, Sun,
Weinberger: On Calibration of Modern Neural Networks, 2017, arXiv 1706.04599, section 4.2.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from trainer.network.model_metadata import HIGHEST_TEMPERATURE, LOWEST_TEMPERATURE
from trainer.training.metrics import Predictions

_MOST_STEPS = 100
_BLOCK_SIZE = 2**20
"""probabilities that are looked at together"""


@dataclass(frozen=True)
class Calibration:
    """A temperature, and the figures of images without it."""

    temperature: float
    validation_before: Predictions
    test_before: Predictions


def fit_temperature(target: npt.NDArray[np.int64], probabilities: npt.NDArray[np.float32]) -> float:
    """Return the temperature under which the classes of images have the highest likelihood.

    The loss is convex in the inverse of the temperature; Newton's method finds where its slope is
    0, and where a step leaves the interval that is known to hold it, the interval is halved.

    Args:
        target: the class of each image, int64 (n,), n above 0.
        probabilities: of all classes, undivided, (n, classes).

    Returns:
        A number from LOWEST_TEMPERATURE, as the best would be 0 where every answer is right, to
        HIGHEST_TEMPERATURE, of five digits, so that it does not depend on how processors round.
    """
    logs = np.log(probabilities.astype(np.float64).clip(np.finfo(np.float32).tiny))
    low, high, inverse = 1 / HIGHEST_TEMPERATURE, 1 / LOWEST_TEMPERATURE, 1.0
    for _ in range(_MOST_STEPS):
        slope, curvature = _slope(logs, target, inverse)
        low, high = (inverse, high) if slope < 0 else (low, inverse)
        step = inverse - slope / curvature if curvature > 0 else np.inf
        following = step if low < step < high else (low + high) / 2
        if abs(following - inverse) < 1e-9 * inverse:
            break
        inverse = following
    return float(f"{1 / inverse:.5g}")


def _slope(
    logs: npt.NDArray[np.float64], target: npt.NDArray[np.int64], inverse: float
) -> tuple[float, float]:
    """Return the first and the second derivative of the mean loss by the inverse temperature."""
    slope = curvature = 0.0
    rows = max(1, _BLOCK_SIZE // logs.shape[1])
    for begin in range(0, len(logs), rows):
        block = logs[begin : begin + rows]
        scaled = inverse * block
        shares = np.exp(scaled - scaled.max(1, keepdims=True))
        shares /= shares.sum(1, keepdims=True)
        mean = (shares * block).sum(1)
        own = block[np.arange(len(block)), target[begin : begin + rows]]
        slope += float((mean - own).sum())
        curvature += float((shares * np.square(block - mean[:, None])).sum())
    return slope / len(logs), curvature / len(logs)
