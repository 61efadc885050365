"""The pictures, by what is drawn in them."""

from __future__ import annotations

import itertools
import subprocess
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from tests.conftest import REPOSITORY
from trainer.run.report import curves, plots
from trainer.training.confusion import Confusion, count_confusion
from trainer.training.coverage import coverage_curve
from trainer.training.metrics import calibration_bins

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def steps(losses: Sequence[float | None]) -> list[dict[str, float | None]]:
    return [
        {"step": step, "loss": loss, "lr": 0.1 / step} for step, loss in enumerate(losses, start=1)
    ]


def full(counts: npt.ArrayLike) -> Confusion:
    """The confusion of these counts, rows true, columns predicted."""
    matrix = np.asarray(counts, dtype=int)
    true, predicted = np.nonzero(matrix)
    return Confusion(len(matrix), true, predicted, matrix[true, predicted])


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def texts(figure: Figure) -> list[str]:
    """All text of a figure that is drawn."""
    from matplotlib.text import Text

    found = figure.findobj(Text)
    return [text.get_text() for text in found if text.get_visible() and text.get_text()]


def test_curves_hold_every_loss_accuracy_and_learning_rate(tmp_path: Path) -> None:
    losses = [2.0 / step for step in range(1, 201)]
    epochs = [
        {"epoch": 1, "train_accuracy": 0.5, "validation_accuracy": 0.6},
        {"epoch": 2, "train_accuracy": 0.7, "validation_accuracy": 0.8},
        {"epoch": 3, "train_accuracy": 0.9, "validation_accuracy": 0.75},
    ]
    figures = curves.draw_curves(steps(losses), epochs)
    loss_axes, accuracy_axes, rate_axes = (figure.axes[0] for figure in figures)
    raw, smooth = loss_axes.lines
    assert set(raw.get_ydata()) == set(losses)
    assert np.ptp(np.diff(smooth.get_ydata()[::2])) < np.ptp(np.diff(losses))
    train, validation = accuracy_axes.lines
    assert list(train.get_ydata()) == [0.5, 0.7, 0.9]
    assert list(validation.get_xdata()) == [1, 2, 3]
    assert "validation, best 80.00 % (epoch 2)" in texts(figures[1])
    assert set(rate_axes.lines[0].get_ydata()) == {0.1 / step for step in range(1, 201)}
    pictures = plots.save_row(figures, tmp_path / "curves.png")
    np.testing.assert_array_equal(pixels(tmp_path / "curves.png"), np.hstack(pictures))
    assert all(picture.std() > 5 for picture in pictures)


@pytest.mark.parametrize("losses", [[2.3], [2.3, None, 1.9], [2.0] * 61, [None]])
@pytest.mark.parametrize("epochs", [[], [{"epoch": 1, "validation_accuracy": None}]])
def test_curves_without_validation(
    tmp_path: Path, losses: list[float | None], epochs: list[dict[str, float | None]]
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figures = curves.draw_curves(steps(losses), epochs)
        plots.save_row(figures, tmp_path / "curves.png")
    assert "not measured" in texts(figures[1])
    assert len(figures[0].axes[0].lines[0].get_ydata()) >= len(losses)


def test_no_share_of_right_answers_is_above_all() -> None:
    right = np.arange(1000) > 0
    figure = plots.draw_coverage(coverage_curve(right, np.linspace(0.3, 1, 1000)))
    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert "100" in labels[-1]
    assert len(labels) > 2


def test_one_epoch_shows_its_point() -> None:
    _, figure, _ = curves.draw_curves(steps([1.0]), [{"epoch": 1, "validation_accuracy": 0.5}])
    (line,) = figure.axes[0].lines
    assert (list(line.get_xdata()), list(line.get_ydata())) == ([1], [0.5])
    assert line.get_marker() == "o", "one point makes no line"


def test_a_long_run_is_thinned_without_losing_a_spike() -> None:
    losses = np.full(100_001, 0.5)
    losses[77_777] = 9.0
    figure, *_ = curves.draw_curves(steps(losses.tolist()), [])
    raw = figure.axes[0].lines[0].get_ydata()
    assert len(raw) <= 8002
    assert raw.max() == 9.0


def test_runs_lie_over_each_other_by_name(tmp_path: Path) -> None:
    epochs = [{"epoch": 1, "validation_accuracy": 0.5}]
    names = [f"run {place}" for place in range(9)] + ["$x^{$"]
    courses = [curves.RunCurves(name, steps([2.0, 1.0]), epochs) for name in names]
    courses += [
        curves.RunCurves("not validated", steps([3.0]), []),
        curves.RunCurves("new", [], []),
    ]
    figures = curves.draw_overlaid(courses)
    assert {*names[:-1], "not validated"} <= set(texts(figures[0]))
    assert [len(figure.axes[0].lines) for figure in figures] == [11, 10, 11]
    looks = {(line.get_color(), line.get_linestyle()) for line in figures[0].axes[0].lines}
    assert len(looks) == 11, "every run has a look of its own"
    plots.save_row(figures, tmp_path / "curves.png")


@pytest.mark.parametrize("window", [1, 3, 7, 99])
def test_smoothing_is_the_mean_of_the_known_neighbours(window: int) -> None:
    values = np.array([3.0, 1.0, np.nan, 5.0, 2.0, 8.0, 4.0])
    half = window // 2
    expected = [
        np.nanmean(part) if np.isfinite(part := values[max(i - half, 0) : i + half + 1]).any()
        else np.nan
        for i in range(len(values))
    ]  # fmt: skip
    np.testing.assert_allclose(curves._smooth(values, window), expected)


@pytest.mark.parametrize("classes", [2, 10, 30, 100])
def test_confusion_names_every_class_and_counts_every_cell(tmp_path: Path, classes: int) -> None:
    names = [f"class {place}" for place in range(classes)]
    confusion = np.eye(classes, dtype=int) * 17
    confusion[0, 1] = 5
    figure = plots.draw_confusion(full(confusion), names)
    axes = figure.axes[0]
    counts = [text.get_text() for text in axes.texts]
    assert counts.count("17") == classes
    assert sorted(set(counts)) == ["17", "5"], "an empty cell stays empty"
    for labels in (axes.get_xticklabels(), axes.get_yticklabels()):
        assert [label.get_text() for label in labels] == names
    shares = np.asarray(figure.axes[0].images[0].get_array())
    np.testing.assert_allclose(shares[0, :2], [17 / 22, 5 / 22])
    plots.save(figure, tmp_path / "confusion.png")
    height, width, _ = pixels(tmp_path / "confusion.png").shape
    assert 300 <= min(height, width) <= max(height, width) <= 4200


def test_of_many_classes_the_most_confused_are_drawn(tmp_path: Path) -> None:
    """Pairs of neighbours, those of high numbers most often; the last column counts all others."""
    classes = 1000
    target = np.repeat(np.arange(classes), 10)
    predicted = target.copy()
    for true in range(900, 1000):
        predicted[10 * true : 10 * true + 1 + (true - 900) // 20] = true - 1
    predicted[9999] = 5  # a class that is not drawn
    figure = plots.draw_confusion(
        count_confusion(target, predicted, classes), [f"class {place}" for place in range(classes)]
    )
    axes = figure.axes[0]
    rows = [label.get_text() for label in axes.get_yticklabels()]
    columns = [label.get_text() for label in axes.get_xticklabels()]
    assert columns == [*rows, "all others"]
    assert len(rows) == 40
    assert {f"class {place}" for place in range(980, 1000)} <= set(rows)
    assert axes.get_title() == "the 40 most often confused of 1,000 classes"
    shares = np.asarray(axes.images[0].get_array())
    np.testing.assert_allclose(shares.sum(1), 1)
    last = rows.index("class 999")
    assert shares[last].tolist()[-3:] == [0.5, 0.4, 0.1]
    plots.save(figure, tmp_path / "confusion.png")
    assert max(pixels(tmp_path / "confusion.png").shape) < 2000


def test_many_classes_without_mistakes_are_drawn() -> None:
    target = np.arange(500)
    names = [str(place) for place in target]
    figure = plots.draw_confusion(count_confusion(target, target, 500), names)
    assert np.trace(np.asarray(figure.axes[0].images[0].get_array())) == 40


def test_labels_neither_overlap_nor_are_cut_off() -> None:
    names = ["a class with a name that is far too long to be shown", "b", "$x^{$", "ж" * 20]
    for classes in (4, 10, 100):
        many = (names * 25)[:classes]
        figure = plots.draw_confusion(full(np.eye(classes, dtype=int)), many)
        whole = figure.get_tightbbox().transformed(figure.dpi_scale_trans)
        boxes = [label.get_window_extent() for label in figure.axes[0].get_yticklabels()]
        assert all(whole.x0 <= box.x0 and box.x1 <= whole.x1 for box in boxes)
        tops = sorted((box.y0, box.y1) for box in boxes)
        assert all(lower[1] <= upper[0] for lower, upper in itertools.pairwise(tops))


def test_an_absent_class_is_no_division_by_zero() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure = plots.draw_confusion(full([[0, 0], [3, 1]]), ["absent", "present"])
    assert np.asarray(figure.axes[0].images[0].get_array())[0].tolist() == [0, 0]


@pytest.mark.parametrize("shape", [(28, 28), (32, 32, 3), (8, 20)])
@pytest.mark.parametrize("count", [1, 7, 24])
def test_mistakes_show_image_classes_and_probability(
    tmp_path: Path, shape: tuple[int, ...], count: int
) -> None:
    images = np.arange(count * int(np.prod(shape))).reshape(count, *shape).astype(np.uint8)
    target, predicted = np.zeros(count, dtype=int), np.ones(count, dtype=int)
    probability = np.full(count, 0.9736, dtype=np.float32)
    figure = plots.draw_mistakes(images, target, predicted, probability, ["Shirt", "Coat"])
    assert texts(figure).count("Shirt\n→ Coat\n97.36 %") == count
    drawn = figure.axes[0].images
    assert len(drawn) == count
    np.testing.assert_array_equal(np.asarray(drawn[-1].get_array()), images[-1])
    plots.save(figure, tmp_path / "mistakes.png")
    assert pixels(tmp_path / "mistakes.png").std() > 5


def test_no_mistakes_is_said(tmp_path: Path) -> None:
    nothing = np.empty(0, dtype=int)
    figure = plots.draw_mistakes(
        np.empty((0, 28, 28), dtype=np.uint8), nothing, nothing, nothing.astype(float), ["a", "b"]
    )
    assert texts(figure) == ["No mistakes on the test set."]
    plots.save(figure, tmp_path / "mistakes.png")
    assert pixels(tmp_path / "mistakes.png").min() < 100


def test_a_dollar_is_no_formula(tmp_path: Path) -> None:
    names = [r"$\broken{$", "cheap $ dear $"]
    plots.save(plots.draw_confusion(full(np.eye(2)), names), tmp_path / "confusion.png")
    images, one = np.zeros((1, 4, 4), dtype=np.uint8), np.zeros(1, dtype=int)
    figure = plots.draw_mistakes(images, one, one + 1, np.ones(1), names)
    plots.save(figure, tmp_path / "mistakes.png")
    assert (tmp_path / "mistakes.png").exists()


def test_reliability_shows_each_bin_and_its_gap(tmp_path: Path) -> None:
    correct = np.array([True, True, False, True])
    bins = calibration_bins(correct, np.array([0.97, 0.98, 0.99, 0.42], dtype=np.float32))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure = plots.draw_calibration(bins)
        plots.save(figure, tmp_path / "calibration.png")
    axes, count_axes = figure.axes
    heights = [bar.get_height() for bar in axes.patches]
    np.testing.assert_allclose(heights, [1, 2 / 3, 0.42 - 1, 0.98 - 2 / 3], rtol=1e-6)
    lefts = [bar.get_x() for bar in axes.patches[:2]]
    np.testing.assert_allclose(lefts, [6 / 15, 14 / 15])
    np.testing.assert_allclose([bar.get_height() for bar in count_axes.patches], [0.25, 0.75])


def test_the_same_figure_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        plots.save(plots.draw_confusion(full(np.eye(2)), ["a", "b"]), tmp_path / name)
        plots.save_row(curves.draw_curves(steps([2.0, 1.0]), []), tmp_path / f"row-{name}")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert (tmp_path / "row-a.png").read_bytes() == (tmp_path / "row-b.png").read_bytes()
    assert len(list(tmp_path.iterdir())) == 4


def test_no_global_state_of_matplotlib_is_touched() -> None:
    code = (
        "import sys, trainer.run.report.curves as curves\n"
        "assert 'matplotlib' not in sys.modules\n"
        "curves.draw_curves([{'step': 1, 'loss': 2.0, 'lr': 0.1}], [])\n"
        "assert 'matplotlib.pyplot' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, check=True, timeout=60)
