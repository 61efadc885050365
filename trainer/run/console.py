"""The console of a run: plain text in 80 columns, and a progress bar on a terminal.

Lines go to standard output and the bar to standard error, so that a log file has lines only. Only
rank 0 calls this.
"""

from __future__ import annotations

import contextlib
import logging
import sys
import time
from collections.abc import Callable, Sequence
from operator import itemgetter
from pathlib import Path
from typing import Any, Self

from trainer.base.terminal import format_table, percent, print_line, progress_bar
from trainer.config.schema import LAB_TEST_SAMPLES
from trainer.run.main_figure import has_several_labels

FILES = (
    "report.html", "curves.png", "confusion.png", "mistakes.png", "model.safetensors",
    "receipt.json", "README.md",
)  # fmt: skip
MOST_CLASSES = 100
"""in a table on the screen; if there are more, the WORST_CLASSES"""
WORST_CLASSES = 20
WIDEST_NAME = 21  # so that the table of classes fits into 80 columns

_TABLE_HEAD = (
    "           training          validation",
    "  epoch     loss accuracy     loss{:>9} balanced macro F1    time  images/s",
)


class Progress:
    """Shows the progress of a run; a context manager.

    On a terminal the current epoch has a bar, in a file a line at most every `line_every_s`
    seconds. Each finished epoch adds one line to a table in both.
    """

    def __init__(self, line_every_s: float = 30.0) -> None:
        self._line_every_s = line_every_s
        self._bar: Any = None
        self._epoch = self._epochs = self._steps = 0
        self._next_line_s = 0.0
        self._head_printed = False
        self._cleanup = contextlib.ExitStack()

    def __enter__(self) -> Self:
        if sys.stderr.isatty():
            from tqdm.contrib.logging import logging_redirect_tqdm

            # Warnings go above the bar instead of through it.
            self._cleanup.enter_context(logging_redirect_tqdm([logging.getLogger("lockstep")]))
        return self

    def __exit__(self, *_: object) -> None:
        self._close_bar()
        self._cleanup.close()

    def start_epoch(self, epoch: int, epochs: int, steps: int, done: int = 0) -> None:
        """Begin an epoch, counted from 1, of `epochs`; `done` of its `steps` are done."""
        self._close_bar()
        self._epoch, self._epochs, self._steps = epoch, epochs, steps
        self._next_line_s = time.monotonic() + self._line_every_s
        if sys.stderr.isatty():
            self._bar = progress_bar(
                f"epoch {epoch}/{epochs}",
                steps,
                initial=done,
                bar_format="{desc} {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} "
                "[{elapsed}<{remaining}{postfix}]",
            )

    def update(self, steps: int, loss: float, accuracy: float, samples_per_second: float) -> None:
        """Show the state after this many `steps` of the epoch; accuracy between 0 and 1."""
        values = f"loss {loss:.4f}, acc {percent(accuracy)}, {samples_per_second:,.0f} img/s"
        if self._bar is not None:
            self._bar.n = steps
            self._bar.set_postfix_str(values)
        elif time.monotonic() >= self._next_line_s:
            self._next_line_s = time.monotonic() + self._line_every_s
            print_line(f"{self._place()}   step {steps:,}/{self._steps:,}: {values}")

    def end_epoch(self, record: dict[str, Any]) -> None:
        """Print the epoch's line of the table from its record of metrics.jsonl."""
        self._close_bar()
        figure = "validation_accuracy"
        if "validation_average_precision" in record:
            figure = "validation_average_precision"
        if not self._head_printed:
            for line in _TABLE_HEAD:
                print_line(line.format("accuracy" if figure.endswith("accuracy") else "mAP"))
            self._head_printed = True
        shares = (figure, "validation_balanced_accuracy", "validation_macro_f1")
        print_line(
            f"{self._place()}{_number(record.get('train_loss')):>9}"
            f"{percent(record.get('train_accuracy')):>9}"
            f"{_number(record.get('validation_loss')):>9}"
            + "".join(f"{percent(record.get(key)):>9}" for key in shares)
            + f"{record['seconds']:>6.1f} s{record['samples_per_second']:>8,.0f}/s"
        )

    def _place(self) -> str:
        return f"{self._epoch:>3}/{self._epochs}".ljust(7)

    def _close_bar(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None


def print_results(results: dict[str, Any], output_dir: Path) -> None:
    """Print the test accuracy, a table of the classes, the worst class and where the files are.

    Args:
        output_dir: the run's folder; of its files those that exist are listed.
    """
    print_figures(results["test"], "test")
    print_line("")
    for name in FILES:
        if (output_dir / name).exists():
            print_line(f"{Path(name).stem:<13}  {output_dir / name}")


def print_figures(test: dict[str, Any], images: str) -> None:
    """Print the accuracy, a table of the classes and the worst class.

    Args:
        test: as the part `test` of results.json.
        images: which they are: test, validation or train.
    """
    if has_several_labels(test):
        _print_figures_of_labels(test, images)
        return
    correct = sum(row["correct"] for row in test["per_class"])
    print_line("")
    head = f"{images} accuracy"
    print_line(f"{head:<13}  {percent(test['accuracy'])}  ({correct:,} of {test['samples']:,})")
    if "lab_accuracy" in test:
        lab = f"first {LAB_TEST_SAMPLES:,} test images"
        print_line(f"lab accuracy   {percent(test['lab_accuracy'])}  ({lab})")
    if "augmented" in test:
        print_line(f"augmented      {percent(test['augmented']['accuracy'])}  (with mirror images)")
    if intervals := test.get("intervals"):
        low, high = map(percent, intervals["accuracy"])
        print_line(f"95 % interval  {low} to {high}")
        balanced, f1 = percent(test["balanced_accuracy"]), percent(test["macro_f1"])
        print_line(f"balanced       {balanced}  (macro F1 {f1})")
    print_line("")
    rows = worst_rows(test["per_class"])
    names = [_clip(row["name"]) for row in rows]
    width = max(map(len, ["class", *names]))
    print_line(f"{'class':<{width}}   images  accuracy  precision    recall        F1")
    worst = None
    for name, row in zip(names, rows, strict=True):
        shares = (row["accuracy"], row["precision"], row["recall"], row["f1"])
        # Of a class without images nothing is known.
        cells = "".join(f"{percent(share if row['support'] else None):>10}" for share in shares)
        is_worst = row["name"] == test["worst_class"]
        worst = row if is_worst else worst
        mark = "  <- worst" if is_worst else ""
        print_line(f"{name:<{width}} {row['support']:>8,}{cells}{mark}")
    if note := omitted_note(test["per_class"], rows):
        print_line(note)
    print_line("")
    if worst is not None:
        print_line(f"worst class    {test['worst_class']}, {percent(worst['accuracy'])}")
    _print_slices(test)


def _print_figures_of_labels(test: dict[str, Any], images: str) -> None:
    """Print mAP, the other figures of images with several labels, and a table of the labels."""
    print_line("")
    heads = {
        f"{images} mAP": ("average_precision", "mean of the labels' average precisions"),
        "ROC-AUC": ("roc_auc", "mean over the labels"),
        "micro F1": ("micro_f1", "of all labels together"),
        "macro F1": ("macro_f1", "mean over the labels"),
        "all labels": ("subset_accuracy", f"right of {test['samples']:,} images"),
    }
    for head, (key, what) in heads.items():
        print_line(f"{head:<15}  {percent(test[key])}  ({what})")
    if "augmented" in test:
        figure = percent(test["augmented"]["average_precision"])
        print_line(f"augmented mAP    {figure}  (with mirror images)")
    print_line("")
    rows = worst_rows(test["per_class"], figure="average_precision")
    names = [_clip(row["name"]) for row in rows]
    width = max(map(len, ["label", *names]))
    print_line(f"{'label':<{width}}   images        AP  threshold  precision    recall        F1")
    for name, row in zip(names, rows, strict=True):
        shares = (row["precision"], row["recall"], row["f1"])
        cells = "".join(f"{percent(share if row['support'] else None):>10}" for share in shares)
        mark = "  <- worst" if row["name"] == test["worst_class"] else ""
        print_line(
            f"{name:<{width}} {row['support']:>8,}{percent(row['average_precision']):>10}"
            f"{row['threshold']:>11.3f} {cells}{mark}"
        )
    if note := omitted_note(test["per_class"], rows):
        print_line(note)
    _print_slices(test)


def _print_slices(test: dict[str, Any]) -> None:
    """Print a table for each column that the images are divided by."""
    figure = "all labels" if has_several_labels(test) else "accuracy"
    for name, slices in (test.get("slices") or {}).items():
        print_line("")
        for line in slice_lines(name, slices, figure):
            print_line(line)


def worst_rows(
    rows: Sequence[dict[str, Any]],
    most: int = MOST_CLASSES,
    worst: int = WORST_CLASSES,
    figure: str = "accuracy",
) -> list[dict[str, Any]]:
    """Return the rows of a table of classes: all, or of many the worst that have images.

    Args:
        rows: each with its figure and, where there may be classes without images, `support`.
        most: up to this many are all shown.
        worst: of more, this many are shown, the worst first; ties go to the first.
        figure: the one that decides.
    """
    if len(rows) <= most:
        return list(rows)
    with_images = (row for row in rows if row.get("support", 1))
    return sorted(with_images, key=itemgetter(figure))[:worst]


def class_table(
    rows: Sequence[dict[str, Any]],
    worst_class: str | None,
    head: tuple[str, ...],
    cells: Callable[[dict[str, Any]], tuple[str, ...]],
    figure: str = "accuracy",
) -> list[str]:
    """Return the lines of a table of classes, of many only the worst, with the worst one marked.

    Args:
        rows, figure: as of `worst_rows`.
        head: of the columns after the names.
        cells: those of a row after its name.
    """
    shown = worst_rows(rows, figure=figure)
    table = format_table([("class", *head), *((row["name"], *cells(row)) for row in shown)])
    marks = ["  <- worst" if row["name"] == worst_class else "" for row in shown]
    others = omitted_note(rows, shown)
    return [*map("".join, zip(table, ["", *marks], strict=True)), *([others] if others else [])]


def slice_lines(column: str, rows: Sequence[dict[str, Any]], figure: str = "accuracy") -> list[str]:
    """Return the lines of a table of the slices by a column, of many only the worst.

    Args:
        rows: worst first, as `training.slices` gives them.
        figure: what is shown: the accuracy, or the share of images with all labels right.
    """
    cells = [
        (
            _clip(row["value"]),
            f"{row['samples']:,}",
            percent(row["accuracy"]),
            " to ".join(map(percent, row["interval"])) + "  small" * row["small"],
        )
        for row in rows[:WORST_CLASSES]
    ]
    head = (_clip(column), "images", figure, "95 % interval")
    others = len(rows) - len(cells)
    note = [f"and {others:,} more slices; these are the worst"] if others else []
    return [*format_table([head, *cells], left=(0, 3)), *note]


def omitted_note(rows: Sequence[dict[str, Any]], shown: Sequence[dict[str, Any]]) -> str | None:
    """Say how many classes a table leaves out; None if all are shown."""
    others = len(rows) - len(shown)
    return f"and {others:,} more classes; these are the worst" if others else None


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _clip(name: str) -> str:
    return name if len(name) <= WIDEST_NAME else name[: WIDEST_NAME - 3] + "..."
