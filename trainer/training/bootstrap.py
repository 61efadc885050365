"""Intervals of figures by the bootstrap: the images are drawn again, with replacement, many times.

From Efron and Tibshirani: An Introduction to the Bootstrap, 1993; the intervals are the percentile
intervals of its chapter 13. All draws come from one named stream of the run's seed, so the same
images and answers always give the same intervals.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from trainer.base import seeding

DRAWS = 1000
CONFIDENCE = 0.95

_SIZE_AT_ONCE = 2**19
"""numbers of one array; the caches of a processor hold a few of them"""

Weights = npt.NDArray[np.float64]


def iter_draws(seed: int, count: int, columns: int = 1, draws: int = DRAWS) -> Iterator[Weights]:
    """Yield how often each image comes in each of some draws: whole numbers, (draws, count).

    Args:
        seed: of the run.
        count: the images; as many are drawn each time.
        columns: how many numbers are kept for each image while a draw is used.
    """
    generator = seeding.generator(seed, "bootstrap")
    at_once = max(1, _SIZE_AT_ONCE // (count * columns))
    for begin in range(0, draws, at_once):
        rows = min(at_once, draws - begin)
        drawn = generator.integers(0, count, (rows, count), dtype=np.int32)
        drawn = drawn.astype(np.int64)
        drawn += np.arange(0, rows * count, count)[:, None]
        found = np.bincount(drawn.ravel(), minlength=rows * count)
        yield found.reshape(rows, count).astype(np.float64)


def interval(values: npt.NDArray[np.float64], around: float | None = None) -> list[float] | None:
    """Return the ends of the interval of a figure.

    Args:
        values: of the draws, (draws,); NaN where a draw has none.
        around: the figure, where draws are biased: the interval is moved by as much as their
            median is away from it.

    Returns:
        Its lower and its upper end; None where no draw has a value.
    """
    known = values[np.isfinite(values)]
    if not len(known):
        return None
    rest = (1 - CONFIDENCE) / 2
    low, middle, high = np.quantile(known, [rest, 0.5, 1 - rest]).tolist()
    bias = 0.0 if around is None else middle - around
    return [low - bias, high - bias]
