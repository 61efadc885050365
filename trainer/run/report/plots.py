"""The pictures of a run, drawn with matplotlib's objects alone: no pyplot, no global state."""

from __future__ import annotations

import contextlib
import itertools
import math
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np

from trainer.base.files import write_file
from trainer.training.metrics import Calibration, Confusion

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Corner = Literal["upper right", "lower right"]

BLUE, ORANGE, GREY = "#1f6fb4", "#d9730d", "#6b7280"
DOTS_PER_INCH = 140
MOST_CLASSES_WITH_LARGE_TEXT = 20
MOST_CLASSES_DRAWN = 100
"""in a confusion matrix, whose picture grows with their square; of more, the MOST_CONFUSED"""
MOST_CONFUSED = 40


def draw_most_confused(confusion: Confusion, names: Sequence[str]) -> Figure:
    """Of more classes than a matrix has room for, those that are most often confused.

    A last column counts what each was taken for besides, so that a row is all of its class.
    """
    chosen = _most_confused(confusion)
    inside = confusion.matrix(chosen).astype(np.int64)
    support = confusion.support()[chosen]
    others = support - inside.sum(axis=1)
    labels = [shorten(names[place], 20) for place in chosen]
    figure = _draw_counts(np.column_stack([inside, others]), labels, [*labels, "all others"])
    figure.axes[0].axvline(len(chosen) - 0.5, color=GREY, linewidth=0.8)
    figure.axes[0].set_title(
        f"the {len(chosen)} most often confused of {confusion.classes:,} classes", fontsize=9, pad=8
    )
    return figure


def _most_confused(confusion: Confusion) -> np.ndarray:
    """MOST_CONFUSED classes, in rising order, by the most frequent mistakes."""
    chosen: set[int] = set()
    wrong = confusion.mistakes()
    pairs = zip(confusion.true[wrong].tolist(), confusion.predicted[wrong].tolist(), strict=True)
    alone = ((place,) for place in range(confusion.classes))  # where there are few mistakes
    for classes in itertools.chain(pairs, alone):
        if len(chosen | set(classes)) <= MOST_CONFUSED:
            chosen.update(classes)
        if len(chosen) == MOST_CONFUSED:
            break
    return np.array(sorted(chosen))


def draw_confusion(confusion: np.ndarray, names: Sequence[str]) -> Figure:
    """The confusion matrix: counts as numbers, shares of the true class as colours.

    Args:
        confusion: counts, shape (classes, classes), rows true, columns predicted; of at most
            MOST_CLASSES_DRAWN classes.
    """
    labels = [shorten(name, 20) for name in names]
    return _draw_counts(confusion, labels, labels)


def _draw_counts(confusion: np.ndarray, rows: Sequence[str], columns: Sequence[str]) -> Figure:
    """Counts, shape (rows, columns), where a row is all of its class."""
    from matplotlib.colors import PowerNorm

    large = len(columns) <= MOST_CLASSES_WITH_LARGE_TEXT
    cell_inch, text_size, label_size = (0.5, 11, 11) if large else (0.25, 5.5, 6.5)
    # Labels of any length hang out of the figure, which is cut to fit when saved.
    figure = new_figure(max(len(columns) * cell_inch, 2.5), max(len(rows) * cell_inch, 2.5))
    axes = figure.add_axes((0, 0, 1, 1))

    support = confusion.sum(axis=1, keepdims=True)
    shares = confusion / np.maximum(support, 1)
    # The root lets a few per cent of confusion be seen.
    axes.imshow(shares, cmap="Blues", norm=PowerNorm(0.5, 0, 1))
    for row, column in zip(*np.nonzero(confusion), strict=True):
        colour = "white" if shares[row, column] > 0.3 else "#1f2937"
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
    axes.set_xticks(range(len(columns)), columns, rotation=90, fontsize=label_size)
    axes.set_yticks(range(len(rows)), rows, fontsize=label_size)
    axes.set_xlabel("predicted class", labelpad=8, fontsize=label_size)
    axes.set_ylabel("true class", labelpad=8, fontsize=label_size)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
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
        figure = new_figure(6, 2)
        figure.text(0.5, 0.5, "No mistakes on the test set.", ha="center", va="center", size=14)
        return figure
    columns = min(len(images), 6)
    rows = math.ceil(len(images) / columns)
    tall = images.shape[1] / images.shape[2]
    pitch = tall + 0.48  # an image is 1 wide and `tall` high, its caption stands above it
    figure = new_figure(1.75 * columns, 1.65 * rows * pitch)
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
            f"{shorten(names[true], 16)}\n→ {shorten(names[guess], 16)}\n{100 * share:.2f} %",
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
    if len(loss):  # the last ones may be out of all proportion
        axes.set_ylim(0, 1.1 * max(smoothed_loss))
    finish(axes)
    return figure


def draw_reliability(bins: Calibration) -> Figure:
    """The share of right answers over the probability given to them, and how often it was given."""
    figure = new_figure(4.3, 4.3)
    axes, count_axes = figure.subplots(
        2, sharex=True, height_ratios=(3, 1), gridspec_kw={"hspace": 0.12}
    )
    figure.subplots_adjust(0.16, 0.12, 0.96, 0.92)
    used = bins.count > 0
    edges = np.linspace(0, 1, len(bins.count) + 1)
    width, left = edges[1], edges[:-1][used]
    confidence, accuracy = bins.confidence[used], bins.accuracy[used]
    axes.bar(
        left,
        accuracy,
        width,
        align="edge",
        color=BLUE,
        edgecolor="white",
        label="share of right answers",
    )
    axes.bar(
        left, confidence - accuracy, width, accuracy, align="edge", facecolor="none",
        edgecolor=ORANGE, hatch="////", linewidth=0.8, label="gap to the probability given",
    )  # fmt: skip
    axes.plot([0, 1], [0, 1], "--", color=GREY, linewidth=1.2)
    axes.set_ylim(0, 1)
    axes.set_ylabel("share of right answers")
    count_axes.bar(left, bins.count[used] / bins.count.sum(), width, align="edge", color=GREY,
                   edgecolor="white")  # fmt: skip
    count_axes.set_ylabel("images")
    count_axes.set_xlabel("probability of the predicted class")
    count_axes.set_xlim(0, 1)
    for each in (axes, count_axes):
        each.xaxis.set_major_formatter(percent_format())
        each.yaxis.set_major_formatter(percent_format())
    finish(axes)
    finish(count_axes)
    # Above the axes, as bars may be anywhere in them.
    axes.legend(frameon=False, loc="lower left", bbox_to_anchor=(-0.02, 1), ncols=2, fontsize=8.5)
    return figure


def save(figure: Figure, path: Path, *, transparent: bool = False) -> None:
    """Write the figure as PNG, whole or not at all; the same figure gives the same bytes."""
    with _any_script():
        # savefig's own "tight" would draw everything twice.
        extent = figure.get_tightbbox().padded(0.15)
        write_file(
            path,
            lambda temporary: figure.savefig(
                temporary,
                dpi=DOTS_PER_INCH,
                bbox_inches=extent,
                transparent=transparent,
                metadata={"Software": None},
            ),
        )


def save_row(figures: Sequence[Figure], path: Path) -> list[np.ndarray]:
    """Write figures of one height side by side as PNG, whole or not at all.

    Returns:
        The picture of each, as `draw_row`.
    """
    from PIL import Image

    pictures = draw_row(figures)
    row = Image.fromarray(np.hstack(pictures))
    write_file(path, row.save)
    return pictures


def draw_row(figures: Sequence[Figure]) -> list[np.ndarray]:
    """The picture of each figure, uint8 (height, width, 3), as large as the figure says."""
    pictures = []
    for figure in figures:
        figure.set_dpi(DOTS_PER_INCH)
        canvas = cast(Any, figure.canvas)  # its methods have no types
        with _any_script():
            canvas.draw()
        pictures.append(np.array(canvas.buffer_rgba())[..., :3])
    return pictures


@contextlib.contextmanager
def _any_script() -> Iterator[None]:
    """Names in a script that the font lacks are drawn as boxes, without a warning for each letter.

    The page has them as text.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from", UserWarning)
        yield


def finish(axes: Axes, legend: Corner | None = None) -> None:
    """The look that all curves share.

    Args:
        legend: the corner where it stands, None for none.
    """
    axes.grid(color="#e5e7eb", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color("#9ca3af")
    if not axes.lines and not axes.patches:
        axes.text(0.5, 0.5, "not measured", transform=axes.transAxes, ha="center", color=GREY)
    elif legend:
        axes.legend(frameon=False, loc=legend, fontsize=9)


def shorten(name: str, length: int) -> str:
    """A class's name for a narrow place; a dollar sign is no formula."""
    name = name if len(name) <= length else name[: length - 1] + "…"
    return name.replace("$", r"\$")


def _fitting_size(largest: int, cell_inch: float, size: float) -> float:
    """A font size at which the number fits into its cell (a digit is about 0.64 em wide)."""
    return min(size, 0.9 * cell_inch * 72 / (0.64 * len(str(largest))))


def percent_format() -> Any:
    """A formatter for the ticks of an axis of shares: 0.5 as 50 %."""
    from matplotlib.ticker import PercentFormatter

    return PercentFormatter(xmax=1, symbol=" %")


def new_figure(width_inch: float, height_inch: float) -> Figure:
    """An empty figure that needs no screen, apart from pyplot and what a program does with it."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width_inch, height_inch))
    FigureCanvasAgg(figure)
    return figure
