"""Draw the pictures of a run with matplotlib's objects: no pyplot, no global state."""

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
from trainer.run.report import fonts
from trainer.run.report.fonts import Fonts
from trainer.training.confusion import Confusion
from trainer.training.coverage import CoverageCurve
from trainer.training.metrics import CalibrationBins

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


def draw_confusion(confusion: Confusion, names: Sequence[str]) -> Figure:
    """Draw a confusion matrix: counts as numbers, shares of the true class as colours.

    Of more than MOST_CLASSES_DRAWN classes it has the MOST_CONFUSED, and a last column that counts
    all other answers.
    """
    chosen = drawn_classes(confusion)
    found = fonts.find(names[label] for label in chosen)
    labels = [shorten(found.label(names[label], label), 20) for label in chosen]
    if len(chosen) == confusion.classes:
        return _draw_counts(confusion.matrix(), labels, labels, found)
    counts = confusion.matrix(np.array(chosen)).astype(np.int64)
    others = confusion.support()[chosen] - counts.sum(axis=1)
    columns = [*labels, "all others"]
    figure = _draw_counts(np.column_stack([counts, others]), labels, columns, found)
    figure.axes[0].axvline(len(chosen) - 0.5, color=GREY, linewidth=0.8)
    figure.axes[0].set_title(
        f"the {len(chosen)} most often confused of {confusion.classes:,} classes", fontsize=9, pad=8
    )
    return figure


def drawn_classes(confusion: Confusion) -> list[int]:
    """Return which classes the picture has, in ascending order: all, or the MOST_CONFUSED."""
    if confusion.classes <= MOST_CLASSES_DRAWN:
        return list(range(confusion.classes))
    chosen: set[int] = set()
    wrong = confusion.mistakes()
    pairs = zip(confusion.true[wrong].tolist(), confusion.predicted[wrong].tolist(), strict=True)
    single = ((label,) for label in range(confusion.classes))  # if there are few mistakes
    for classes in itertools.chain(pairs, single):
        if len(chosen | set(classes)) <= MOST_CONFUSED:
            chosen.update(classes)
        if len(chosen) == MOST_CONFUSED:
            break
    return sorted(chosen)


def _draw_counts(
    counts: np.ndarray, rows: Sequence[str], columns: Sequence[str], found: Fonts
) -> Figure:
    """Draw counts, shape (rows, columns), where each row has all images of its class."""
    from matplotlib.colors import PowerNorm

    large = len(columns) <= MOST_CLASSES_WITH_LARGE_TEXT
    cell_inch, text_size, label_size = (0.5, 11, 11) if large else (0.25, 5.5, 6.5)
    # A digit is about 0.64 em wide.
    text_size = min(text_size, 0.9 * cell_inch * 72 / (0.64 * len(str(counts.max()))))
    # Labels of any length reach out of the figure, which is cut to fit when saved.
    figure = new_figure(max(len(columns) * cell_inch, 2.5), max(len(rows) * cell_inch, 2.5))
    axes = figure.add_axes((0, 0, 1, 1))
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    # By the square root a few per cent of confusion become visible.
    axes.imshow(shares, cmap="Blues", norm=PowerNorm(0.5, 0, 1))
    for row, column in zip(*np.nonzero(counts), strict=True):
        axes.text(
            column,
            row,
            str(counts[row, column]),
            ha="center",
            va="center",
            color="white" if shares[row, column] > 0.3 else "#1f2937",
            fontsize=text_size,
            in_layout=False,  # it cannot stick out, so it need not be measured
        )
    look: dict[str, Any] = {"fontsize": label_size, "fontfamily": found.families}
    axes.set_xticks(range(len(columns)), columns, rotation=90, **look)
    axes.set_yticks(range(len(rows)), rows, **look)
    axes.set_xlabel("predicted class", labelpad=8, fontsize=label_size)
    axes.set_ylabel("true class", labelpad=8, fontsize=label_size)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    return figure


def draw_calibration(bins: CalibrationBins) -> Figure:
    """Draw the share of correct answers, and of all images, over the probability given to them."""
    figure = new_figure(4.3, 4.3)
    axes, count_axes = figure.subplots(
        2, sharex=True, height_ratios=(3, 1), gridspec_kw={"hspace": 0.12}
    )
    figure.subplots_adjust(0.16, 0.12, 0.96, 0.92)
    used = bins.count > 0
    width = 1 / len(bins.count)
    left = np.flatnonzero(used) * width
    confidence, accuracy = bins.confidence[used], bins.accuracy[used]
    bar = {"width": width, "align": "edge", "edgecolor": "white"}
    axes.bar(left, accuracy, color=BLUE, label="share of correct answers", **bar)
    gap = {"edgecolor": ORANGE, "facecolor": "none", "hatch": "////", "linewidth": 0.8}
    axes.bar(
        left, confidence - accuracy, bottom=accuracy, label="gap to the probability given",
        **bar | gap,
    )  # fmt: skip
    axes.plot([0, 1], [0, 1], "--", color=GREY, linewidth=1.2)
    axes.set_ylim(0, 1)
    axes.set_ylabel("share of correct answers")
    count_axes.bar(left, bins.count[used] / bins.count.sum(), color=GREY, **bar)
    count_axes.set_ylabel("images")
    count_axes.set_xlabel("probability of the predicted class")
    count_axes.set_xlim(0, 1)
    for each in (axes, count_axes):
        each.xaxis.set_major_formatter(percent_format())
        each.yaxis.set_major_formatter(percent_format())
        finish(each)
    # Above the axes, as bars may be anywhere in them.
    axes.legend(frameon=False, loc="lower left", bbox_to_anchor=(-0.02, 1), ncols=2, fontsize=8.5)
    return figure


def draw_coverage(curve: CoverageCurve) -> Figure:
    """Draw the share of right answers over the share of images that are answered."""
    figure = new_figure(4.3, 3.2)
    axes = figure.add_axes((0.2, 0.15, 0.76, 0.74))
    axes.plot(curve.coverage, curve.accuracy, color=BLUE, linewidth=1.8)
    axes.set_title("Right answers among the surest")
    axes.set_xlabel("share of the images that are answered")
    axes.set_xlim(0, 1)
    lowest = float(curve.accuracy.min())
    bottom, top = max(0.0, lowest - 0.1 * (1.02 - lowest)), 1 + 0.02 * (1 - lowest) + 0.002
    axes.set_ylim(bottom, top)
    # No share is above 1.
    axes.set_yticks([tick for tick in axes.get_yticks() if bottom <= tick <= 1])
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(percent_format())
    finish(axes)
    return figure


def draw_mistakes(
    images: np.ndarray,
    target: np.ndarray,
    predicted: np.ndarray,
    probability: np.ndarray,
    names: Sequence[str],
) -> Figure:
    """Draw a grid of images with true -> predicted class and the probability given to the latter.

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
    fitting = fonts.find(names[label] for label in (*target.tolist(), *predicted.tolist()))
    height = images.shape[1] / images.shape[2]
    pitch = height + 0.48  # an image is 1 wide and `height` high, its caption is above it
    figure = new_figure(1.75 * columns, 1.65 * rows * pitch)
    # One pair of axes for all images: many are slow to lay out.
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    for place, (image, true, guess, share) in enumerate(
        zip(images, target, predicted, probability, strict=True)
    ):
        left, top = 1.08 * (place % columns), pitch * (place // columns)
        known, answer = (shorten(fitting.label(names[one], one), 16) for one in (true, guess))
        extent = (left, left + 1, top + height, top)
        axes.imshow(image, cmap="gray", vmin=0, vmax=255, interpolation="nearest", extent=extent)
        axes.text(
            left + 0.5,
            top - 0.04,
            f"{known}\n→ {answer}\n{100 * share:.2f} %",
            ha="center",
            va="bottom",
            fontsize=9,
            fontfamily=fitting.families,
        )
    axes.set_xlim(-0.04, 1.08 * columns - 0.04)
    axes.set_ylim(rows * pitch - 0.44, -0.48)
    return figure


# ---------------------------------------------------------------------- what all figures share


def new_figure(width_inch: float, height_inch: float) -> Figure:
    """Create an empty figure that needs no screen and is independent of pyplot."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width_inch, height_inch))
    FigureCanvasAgg(figure)
    return figure


def finish(axes: Axes, legend: Corner | None = None) -> None:
    """Give axes the look that all curves share.

    Args:
        legend: its corner, None for no legend.
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
    """Shorten a class's name for a narrow place, and escape dollar signs, which mean formulas."""
    name = name if len(name) <= length else name[: length - 1] + "…"
    return name.replace("$", r"\$")


def percent_format() -> Any:
    """Return a formatter for the ticks of an axis of shares: 0.5 as 50 %."""
    from matplotlib.ticker import PercentFormatter

    return PercentFormatter(xmax=1, symbol=" %")


def save(figure: Figure, path: Path, *, transparent: bool = False) -> None:
    """Write the figure as PNG, whole or not at all; the same figure gives the same bytes."""
    with _ignore_missing_glyphs():
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
    write_file(path, Image.fromarray(np.hstack(pictures)).save)
    return pictures


def draw_row(figures: Sequence[Figure]) -> list[np.ndarray]:
    """Draw each figure as uint8 (height, width, 3), as large as the figure says."""
    pictures = []
    for figure in figures:
        figure.set_dpi(DOTS_PER_INCH)
        canvas = cast(Any, figure.canvas)  # its methods have no types
        with _ignore_missing_glyphs():
            canvas.draw()
        pictures.append(np.array(canvas.buffer_rgba())[..., :3])
    return pictures


@contextlib.contextmanager
def _ignore_missing_glyphs() -> Iterator[None]:
    """Draw boxes for letters that the font lacks, without warnings: the page has them as text."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from", UserWarning)
        yield
