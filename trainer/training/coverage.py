"""What is gained by not answering where a network is not sure: accuracy over coverage.

From El-Yaniv and Wiener: On the Foundations of Noise-free Selective Classification, Journal of
Machine Learning Research 11, 2010.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

THRESHOLDS = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)
"""of the probability of the answer, which a page shows"""


@dataclass(frozen=True)
class CoverageCurve:
    """Answers from the surest down; arrays of shape (different probabilities,)."""

    threshold: npt.NDArray[np.float32]
    """the probability from which on there are answers, falling"""
    coverage: npt.NDArray[np.float64]
    """the share of the images that are answered"""
    accuracy: npt.NDArray[np.float64]
    """the share of these answers that are right"""

    def at(self, threshold: float) -> tuple[float, float | None]:
        """Return coverage and accuracy where less probable answers are withheld.

        The accuracy is None where no image is answered.
        """
        answered = int((self.threshold >= np.float32(threshold)).sum())
        if not answered:
            return 0.0, None
        return float(self.coverage[answered - 1]), float(self.accuracy[answered - 1])


def coverage_curve(
    correct: npt.NDArray[np.bool_], probability: npt.NDArray[np.float32]
) -> CoverageCurve:
    """Return the curve of answers, right or not, with these probabilities; (n,), n above 0."""
    order = np.argsort(-probability, kind="stable")
    ordered = probability[order]
    # Equal probabilities are answered together.
    ends = np.flatnonzero(np.append(ordered[1:] != ordered[:-1], True))
    right = np.cumsum(correct[order])[ends]
    return CoverageCurve(ordered[ends], (ends + 1) / len(order), right / (ends + 1))
