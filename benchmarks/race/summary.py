"""What a page says of the runs of a race: means over the seeds, and when the bar is reached."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from race import OURS

Runs = Mapping[str, Any]
"""what each seed has found, or why it failed"""


@dataclass(frozen=True)
class Summary:
    """A way's runs with all seeds together.

    Attributes:
        curve: median seconds of training and mean accuracy, after each epoch.
        drawn: the same, and in between where a way has points within epochs.
        train_s: the seconds of each seed.
        accuracies: of each seed, at the end.
    """

    curve: list[tuple[float, float]]
    drawn: list[tuple[float, float]]
    train_s: list[float]
    accuracies: list[float]
    versions: list[str]

    def seconds_to(self, bar: float) -> float | None:
        """Return the seconds of the first epoch after which the mean accuracy is at the bar.

        None: it never is. Points within epochs do not count, as not all ways have them.
        """
        return next((seconds for seconds, accuracy in self.curve if accuracy >= bar), None)


def summarise(runs: Runs) -> Summary | None:
    """Return the runs with all seeds together; None if all have failed."""
    done = [run for _, run in sorted(runs.items()) if "points" in run]
    if not done:
        return None
    # Runs of one length have the same points; a length that was changed meanwhile does not count.
    done = [run for run in done if _lengths(run) == _lengths(done[-1])]
    curve = _means([run["points"] for run in done])
    return Summary(
        curve=curve,
        drawn=sorted([*curve, *_means([run.get("within", []) for run in done])]),
        train_s=[run["points"][-1][0] for run in done],
        accuracies=[run["points"][-1][1] for run in done],
        versions=sorted({run["version"] for run in done}),
    )


def _lengths(run: dict[str, Any]) -> tuple[int, int]:
    return len(run["points"]), len(run.get("within", []))


def _means(curves: list[list[list[float]]]) -> list[tuple[float, float]]:
    return [
        (
            statistics.median(seconds for seconds, _ in points),
            statistics.mean(accuracy for _, accuracy in points),
        )
        for points in zip(*curves, strict=True)
    ]


def summaries(ways: Mapping[str, Runs]) -> dict[str, Summary]:
    """Return those of all ways of a race that have a run, in the order of the ways."""
    found = {name: summarise(runs) for name, runs in ways.items()}
    return {name: one for name, one in found.items() if one}


def failures(ways: Mapping[str, Runs]) -> dict[str, str]:
    """Return the last word of each way that failed with a seed."""
    return {
        name: run["failed"] for name, runs in ways.items() for run in runs.values()
        if "failed" in run
    }  # fmt: skip


def shared_seeds(ways: Mapping[str, Runs], other: str) -> tuple[list[float], list[float]]:
    """Return the seconds of our runs and of another way's, seed by seed."""
    ours, others = ways.get(OURS, {}), ways.get(other, {})
    pairs = [
        (ours[seed]["points"][-1][0], others[seed]["points"][-1][0])
        for seed in sorted(ours)
        if "points" in ours[seed] and "points" in others.get(seed, {})
    ]
    return [pair[0] for pair in pairs], [pair[1] for pair in pairs]
