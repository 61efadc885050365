"""Draw the curves of a run, and of several over each other: loss, accuracy, learning rate."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from trainer.run.report.plots import BLUE, GREY, ORANGE, finish, new_figure, percent_format, shorten

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Record = dict[str, Any]
COLOURS = ("#1f6fb4", "#d9730d", "#2a9d5c", "#b5382a", "#7b52ab", "#8a6d1f", "#c2478f", "#4b5563")
"""of runs over each other; the ninth has the first one's again, dashed"""

LONGEST_NAME = 36


class RunCurves(NamedTuple):
    """The records of a run, and its name."""

    name: str
    steps: Sequence[Record]
    epochs: Sequence[Record]


def draw_curves(steps: Sequence[Record], epochs: Sequence[Record]) -> list[Figure]:
    """Draw training loss and learning rate of each iteration, and accuracy of each epoch.

    Args:
        steps: records of event "step" with step, lr and loss (None if it was not finite).
        epochs: records of event "epoch"; train_accuracy and validation_accuracy may be missing
            or None.

    Returns:
        Three figures of one size: loss, accuracy, learning rate.
    """
    figures, axes = _panels(3)
    _draw_loss(axes[0], steps)
    _draw_accuracy(axes[1], epochs)
    axes[2].plot(*_thin(*_column(steps, "step", "lr")), color=BLUE, linewidth=1.8)
    _finish_loss(axes[0])
    _finish_accuracy(axes[1])
    _finish_learning_rate(axes[2])
    return figures


def draw_overlaid(runs: Sequence[RunCurves]) -> list[Figure]:
    """Draw training loss, validation accuracy and learning rate of several runs over each other.

    Of images that may have several labels the accuracy is the mean average precision (mAP).

    Returns:
        Three figures of one size: loss, accuracy, learning rate.
    """
    figures, axes = _panels(3)
    several = any(_has_several_labels(run.epochs) for run in runs)
    for place, (name, steps, epochs) in enumerate(runs):
        if not steps:
            continue
        look: dict[str, Any] = {
            "color": colour(place),
            "linestyle": "-" if place < len(COLOURS) else "--",
            "linewidth": 1.6,
            "label": shorten(_shorten_path(name), LONGEST_NAME),
        }
        step, loss = _column(steps, "step", "loss")
        axes[0].plot(*_thin(step, _smooth(loss, _window(loss))), **_with_marker(look, loss))
        figure = "average_precision" if _has_several_labels(epochs) else "accuracy"
        epoch, accuracy = _column(epochs, "epoch", f"validation_{figure}")
        if np.isfinite(accuracy).any():
            axes[1].plot(epoch, accuracy, marker="o", markersize=3.5, **look)
        axes[2].plot(*_thin(*_column(steps, "step", "lr")), **look)
    _finish_loss(axes[0], "Training loss, running mean")
    _finish_accuracy(axes[1], f"Validation {'mAP' if several else 'accuracy'}", legend=False)
    _finish_learning_rate(axes[2])
    return figures


def draw_range_test(
    lr: Sequence[float],
    loss: Sequence[float],
    smoothed_loss: Sequence[float],
    suggestion: float | None,
) -> Figure:
    """Draw the loss over the learning rate, which rises with each step, and the suggestion."""
    figure = new_figure(7, 4.2)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.plot(lr, loss, color=BLUE, alpha=0.4, linewidth=0.8, label="each step")
    axes.plot(lr, smoothed_loss, color=BLUE, linewidth=1.8, label="smoothed")
    if suggestion is not None:
        label = f"suggestion: {suggestion:g}"
        axes.axvline(suggestion, color=ORANGE, linestyle="--", linewidth=1.4, label=label)
    axes.set_title("Learning-rate range test")
    axes.set_xlabel("learning rate")
    axes.set_ylabel("training loss")
    axes.set_xscale("log")
    if len(loss):  # the last losses may be out of all proportion
        axes.set_ylim(0, 1.1 * max(smoothed_loss))
    finish(axes)
    return figure


def colour(place: int) -> str:
    """Return the colour of the run at a place among several."""
    return COLOURS[place % len(COLOURS)]


def _shorten_path(name: str) -> str:
    """Keep the end of a long path, which tells runs apart."""
    return name if len(name) <= LONGEST_NAME else "…" + name[1 - LONGEST_NAME :]


def _panels(count: int) -> tuple[list[Figure], list[Axes]]:
    """Create figures of one pair of axes each, narrow enough for a phone."""
    figures = [new_figure(4.3, 3.2) for _ in range(count)]
    return figures, [figure.add_axes((0.16, 0.15, 0.8, 0.74)) for figure in figures]


def _draw_loss(axes: Axes, steps: Sequence[Record]) -> None:
    step, loss = _column(steps, "step", "loss")
    window = _window(loss)
    raw_look = {"alpha": 0.4, "linewidth": 0.8} if window > 1 else {"marker": "o", "markersize": 4}
    axes.plot(*_thin(step, loss), color=BLUE, label="each iteration", **raw_look)
    if window > 1:
        smooth = _thin(step, _smooth(loss, window))
        axes.plot(*smooth, color=BLUE, linewidth=1.8, label=f"mean of {window:,} iterations")


def _has_several_labels(epochs: Sequence[Record]) -> bool:
    return any("validation_average_precision" in record for record in epochs)


def _draw_accuracy(axes: Axes, epochs: Sequence[Record]) -> None:
    kinds = [("train_accuracy", GREY, "training"), ("validation_accuracy", ORANGE, "validation")]
    if _has_several_labels(epochs):
        kinds = [
            ("train_accuracy", GREY, "training, all labels right"),
            ("validation_average_precision", ORANGE, "validation, mAP"),
        ]
    for key, colour, label in kinds:
        epoch, accuracy = _column(epochs, "epoch", key)
        if not np.isfinite(accuracy).any():
            continue
        if key.startswith("validation"):
            best = int(np.nanargmax(accuracy))
            label += f", best {100 * accuracy[best]:.2f} % (epoch {epoch[best]:.0f})"
        axes.plot(epoch, accuracy, "o-", color=colour, markersize=4, linewidth=1.8, label=label)


def _finish_loss(axes: Axes, title: str = "Training loss") -> None:
    axes.set_title(title)
    lowest = min((np.nanmin(line.get_ydata(), initial=0) for line in axes.lines), default=0)
    axes.set_ylim(bottom=min(0, lowest))
    _count_iterations(axes)
    finish(axes, "upper right")


def _finish_accuracy(axes: Axes, title: str = "Accuracy", *, legend: bool = True) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.set_title(title)
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True, min_n_ticks=1))
    axes.yaxis.set_major_formatter(percent_format())
    finish(axes, "lower right" if legend else None)


def _finish_learning_rate(axes: Axes) -> None:
    axes.set_title("Learning rate")
    axes.set_ylim(bottom=0)
    axes.ticklabel_format(axis="y", scilimits=(-3, 4))
    _count_iterations(axes)
    finish(axes)


def _count_iterations(axes: Axes) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.set_xlabel("iteration")
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True, min_n_ticks=1))
    axes.xaxis.set_major_formatter("{x:,.0f}")


def _with_marker(look: dict[str, Any], values: np.ndarray) -> dict[str, Any]:
    """Add a marker where there is a single point, which makes no line."""
    return {**look, "marker": "o"} if len(values) == 1 else look


def _column(records: Sequence[Record], x: str, y: str) -> tuple[np.ndarray, np.ndarray]:
    """Return two keys of records as arrays; what is missing or None becomes NaN."""
    return (
        np.array([record[x] for record in records]),
        np.array([record.get(y) for record in records], dtype=float),
    )


def _window(loss: np.ndarray) -> int:
    """Return over how many iterations to take the mean, an odd number."""
    return 2 * (len(loss) // 60) + 1


def _smooth(values: np.ndarray, window: int) -> np.ndarray:
    """Take the centred mean over an odd window that shrinks at the ends and skips NaN."""
    known = np.isfinite(values)
    sums = np.concatenate([[0.0], np.cumsum(np.where(known, values, 0.0))])
    counts = np.concatenate([[0], np.cumsum(known)])
    place = np.arange(len(values))
    first = np.maximum(place - window // 2, 0)
    last = np.minimum(place + window // 2 + 1, len(values))
    count = counts[last] - counts[first]
    return np.where(count > 0, (sums[last] - sums[first]) / np.maximum(count, 1), np.nan)


def _thin(x: np.ndarray, y: np.ndarray, most: int = 4000) -> tuple[np.ndarray, np.ndarray]:
    """Keep the smallest and largest value of each of at most `most` pieces, so all spikes."""
    starts = np.arange(0, len(x), math.ceil(len(x) / most))
    pairs = np.stack([np.fmin.reduceat(y, starts), np.fmax.reduceat(y, starts)], axis=1)
    return np.repeat(x[starts], 2), pairs.ravel()
