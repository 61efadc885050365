"""The pictures of a run, drawn with matplotlib's objects alone: no pyplot, no global state."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from trainer.files import write_file

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Record = dict[str, Any]

BLUE, ORANGE, GREY = "#1f6fb4", "#d9730d", "#6b7280"
DOTS_PER_INCH = 130
MOST_CLASSES_WITH_LARGE_TEXT = 20


def draw_curves(steps: Sequence[Record], epochs: Sequence[Record]) -> Figure:
    """Training loss per iteration, and accuracy per epoch.

    Args:
        steps: records of event "step" with step and loss (None where it was not finite).
        epochs: records of event "epoch"; train_accuracy and validation_accuracy may be missing
            or None.
    """
    figure = _figure(11, 4.2)
    figure.subplots_adjust(0, 0, 1, 1, wspace=0.18)
    loss_axes, accuracy_axes = figure.subplots(1, 2)
    _draw_loss(loss_axes, steps)
    _draw_accuracy(accuracy_axes, epochs)
    return figure


def draw_confusion(confusion: np.ndarray, names: Sequence[str]) -> Figure:
    """The confusion matrix: counts as numbers, shares of the true class as colours.

    Args:
        confusion: counts, shape (classes, classes), rows true, columns predicted.
    """
    classes = len(names)
    large = classes <= MOST_CLASSES_WITH_LARGE_TEXT
    cell_inch, text_size, label_size = (0.62, 9, 9.5) if large else (0.25, 5.5, 6.5)
    labels = [_short(name, 20) for name in names]
    side_inch = max(classes * cell_inch, 2.5)
    # Placed by hand: labels of any length hang out of the figure, which is cut to fit when saved.
    width_inch = side_inch + 0.5
    figure = _figure(width_inch, side_inch)
    axes = figure.add_axes((0, 0, side_inch / width_inch, 1))
    bar_axes = figure.add_axes((1 - 0.2 / width_inch, 0, 0.2 / width_inch, 1))

    support = confusion.sum(axis=1, keepdims=True)
    shares = confusion / np.maximum(support, 1)
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for row, column in zip(*np.nonzero(confusion), strict=True):
        colour = "white" if shares[row, column] > 0.5 else "#1f2937"
        axes.text(
            column,
            row,
            str(confusion[row, column]),
            ha="center",
            va="center",
            color=colour,
            fontsize=_fitting_size(confusion.max(), cell_inch, text_size),
            in_layout=False,  # it cannot stick out, so it need not be measured
        )
    axes.set_xticks(range(classes), labels, rotation=90, fontsize=label_size)
    axes.set_yticks(range(classes), labels, fontsize=label_size)
    axes.set_xlabel("predicted class", labelpad=8)
    axes.set_ylabel("true class", labelpad=8)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    bar = figure.colorbar(image, cax=bar_axes, format=_percent())
    bar.set_label("share of the true class", color=GREY)
    bar.ax.tick_params(length=0)
    bar.ax.spines[:].set_visible(False)
    return figure


def draw_mistakes(
    images: np.ndarray,
    target: np.ndarray,
    predicted: np.ndarray,
    probability: np.ndarray,
    names: Sequence[str],
) -> Figure:
    """A grid of images with true -> predicted class and the probability given to the latter.

    Args:
        images: uint8, shape (n, height, width) or (n, height, width, 3); n may be 0.
        target, predicted: class indices, shape (n,).
        probability: between 0 and 1, shape (n,).
    """
    if len(images) == 0:
        figure = _figure(6, 2)
        figure.text(0.5, 0.5, "No mistakes on the test set.", ha="center", va="center", size=14)
        return figure
    columns = min(len(images), 6)
    rows = math.ceil(len(images) / columns)
    tall = images.shape[1] / images.shape[2]
    pitch = tall + 0.48  # an image is 1 wide and `tall` high, its caption stands above it
    figure = _figure(1.75 * columns, 1.65 * rows * pitch)
    # One pair of axes for all images: many are slow to lay out.
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    for place, (image, true, guess, share) in enumerate(
        zip(images, target, predicted, probability, strict=True)
    ):
        left, top = 1.08 * (place % columns), pitch * (place // columns)
        axes.imshow(
            image,
            cmap="gray",
            vmin=0,
            vmax=255,
            interpolation="nearest",
            extent=(left, left + 1, top + tall, top),
        )
        axes.text(
            left + 0.5,
            top - 0.04,
            f"{_short(names[true], 16)}\n→ {_short(names[guess], 16)}\n{100 * share:.2f} %",
            ha="center",
            va="bottom",
            fontsize=9,
        )
    axes.set_xlim(-0.04, 1.08 * columns - 0.04)
    axes.set_ylim(rows * pitch - 0.44, -0.48)
    return figure


def draw_range_test(
    lr: Sequence[float],
    loss: Sequence[float],
    smoothed_loss: Sequence[float],
    suggestion: float | None,
) -> Figure:
    """Loss over the learning rate, which rises from step to step, and the rate suggested."""
    figure = _figure(7, 4.2)
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
    if len(loss):  # the last ones may be out of all proportion
        axes.set_ylim(0, 1.1 * max(smoothed_loss))
    _finish(axes)
    return figure


def save(figure: Figure, path: Path) -> None:
    """Write the figure as PNG, whole or not at all; the same figure gives the same bytes."""
    # savefig's own "tight" would draw everything twice.
    extent = figure.get_tightbbox().padded(0.15)
    write_file(
        path,
        lambda temporary: figure.savefig(
            temporary, dpi=DOTS_PER_INCH, bbox_inches=extent, metadata={"Software": None}
        ),
    )


def _draw_loss(axes: Axes, steps: Sequence[Record]) -> None:
    from matplotlib.ticker import MaxNLocator

    step = np.array([record["step"] for record in steps])
    loss = np.array([record["loss"] for record in steps], dtype=float)  # None becomes NaN
    window = 2 * (len(loss) // 60) + 1
    raw_look = {"alpha": 0.4, "linewidth": 0.8} if window > 1 else {"marker": "o", "markersize": 4}
    axes.plot(*_thin(step, loss), color=BLUE, label="each iteration", **raw_look)
    if window > 1:
        smooth = _thin(step, _smooth(loss, window))
        axes.plot(*smooth, color=BLUE, linewidth=1.8, label=f"mean of {window:,} iterations")
    axes.set_title("Training loss")
    axes.set_xlabel("iteration")
    axes.set_ylim(bottom=min(0, np.nanmin(loss, initial=0)))
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True, min_n_ticks=1))
    axes.xaxis.set_major_formatter("{x:,.0f}")
    _finish(axes)


def _draw_accuracy(axes: Axes, epochs: Sequence[Record]) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.set_title("Accuracy")
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True, min_n_ticks=1))
    axes.yaxis.set_major_formatter(_percent())
    kinds = (("train_accuracy", GREY, "training"), ("validation_accuracy", ORANGE, "validation"))
    for key, colour, label in kinds:
        points = [
            (record["epoch"], record[key]) for record in epochs if record.get(key) is not None
        ]
        if points:
            x, y = zip(*points, strict=True)
            axes.plot(x, y, "o-", color=colour, markersize=4, linewidth=1.8, label=label)
            if key == "validation_accuracy":
                best = int(np.argmax(y))
                axes.set_title(
                    f"Best validation accuracy: {100 * y[best]:.2f} % after epoch {x[best]}"
                )
    _finish(axes)


def _finish(axes: Axes) -> None:
    """The look that all curves share."""
    axes.grid(color="#e5e7eb", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color("#9ca3af")
    if axes.get_legend_handles_labels()[1]:
        axes.legend(frameon=False)
    else:
        axes.text(0.5, 0.5, "not measured", transform=axes.transAxes, ha="center", color=GREY)


def _smooth(values: np.ndarray, window: int) -> np.ndarray:
    """Centred running mean over an odd window that shrinks at the ends; NaN is left out."""
    known = np.isfinite(values)
    sums = np.concatenate([[0.0], np.cumsum(np.where(known, values, 0.0))])
    counts = np.concatenate([[0], np.cumsum(known)])
    place = np.arange(len(values))
    first = np.maximum(place - window // 2, 0)
    last = np.minimum(place + window // 2 + 1, len(values))
    count = counts[last] - counts[first]
    return np.where(count > 0, (sums[last] - sums[first]) / np.maximum(count, 1), np.nan)


def _thin(x: np.ndarray, y: np.ndarray, most: int = 4000) -> tuple[np.ndarray, np.ndarray]:
    """Smallest and largest value of each of at most `most` pieces: quick to draw, no spike lost."""
    starts = np.arange(0, len(x), math.ceil(len(x) / most))
    pairs = np.stack([np.fmin.reduceat(y, starts), np.fmax.reduceat(y, starts)], axis=1)
    return np.repeat(x[starts], 2), pairs.ravel()


def _fitting_size(largest: int, cell_inch: float, size: float) -> float:
    """A font size at which the number fits into its cell (a digit is about 0.64 em wide)."""
    return min(size, 0.9 * cell_inch * 72 / (0.64 * len(str(largest))))


def _short(name: str, length: int) -> str:
    """A class's name for a narrow place; a dollar sign is no formula."""
    name = name if len(name) <= length else name[: length - 1] + "…"
    return name.replace("$", r"\$")


def _percent() -> Any:
    from matplotlib.ticker import PercentFormatter

    return PercentFormatter(xmax=1, symbol=" %")


def _figure(width_inch: float, height_inch: float) -> Figure:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width_inch, height_inch))
    FigureCanvasAgg(figure)
    return figure
