"""Measure in turn, so that a busy moment of the machine hits all alike; form ratios of pairs."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

Measured = TypeVar("Measured")


def take_turns(
    contenders: Mapping[str, Callable[[], Measured]], rounds: int, warm_up: int = 1
) -> dict[str, list[Measured]]:
    """Return what each contender measures in each round; the order turns every round.

    Args:
        warm_up: rounds before the first that counts.
    """
    found: dict[str, list[Measured]] = {name: [] for name in contenders}
    for number in range(-warm_up, rounds):
        for name in list(contenders)[:: 1 if number % 2 else -1]:
            measured = contenders[name]()
            if number >= 0:
                found[name].append(measured)
    return found


def ratios(ours: Sequence[float], theirs: Sequence[float]) -> list[float]:
    """Return the one over the other in each round."""
    return [mine / other for mine, other in zip(ours, theirs, strict=True)]


def spread(ratios: Sequence[float]) -> str:
    """Format the median and the quartiles of ratios; a single one as it is."""
    if len(ratios) == 1:
        return f"{ratios[0]:.3f}"
    lower, median, upper = statistics.quantiles(ratios, n=4)
    return f"{median:.3f} ({lower:.3f} to {upper:.3f})"
