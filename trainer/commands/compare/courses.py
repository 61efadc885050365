"""How far several runs have come: a table, and their curves over each other."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainer.base.files import write_text
from trainer.base.strict_json import check_type
from trainer.base.terminal import format_table, percent
from trainer.commands.compare.bits import read_metrics, read_results
from trainer.commands.options import report_write_errors
from trainer.run.metrics_log import by_event

if TYPE_CHECKING:
    from trainer.run.report.curves import Course


def row(run: Path) -> dict[str, Any]:
    """What a run has done and found so far.

    Returns:
        `run`, its folder; `epochs` and `steps` done; `train_loss`, the last epoch's;
        `best_validation_accuracy`, `test_accuracy` and `seconds` of training. None is what it has
        not, or not yet. Accuracies lie between 0 and 1.

    Raises:
        UserError: a file in the folder is damaged.
    """
    steps, epochs = by_event(read_metrics(run))
    accuracies = [record.get("validation_accuracy") for record in epochs]
    test = read_results(run).get("test", {})
    check_type(test, dict[str, Any], f"{run / 'results.json'}: test")
    check_type(test.get("accuracy"), float | None, f"{run / 'results.json'}: test.accuracy")
    return {
        "run": str(run),
        "epochs": len(epochs),
        "steps": len(steps),
        "train_loss": epochs[-1].get("train_loss") if epochs else None,
        "best_validation_accuracy": max(
            (accuracy for accuracy in accuracies if accuracy is not None), default=None
        ),
        "test_accuracy": test.get("accuracy"),
        "seconds": sum(record.get("seconds") or 0.0 for record in epochs),
    }


def lines(rows: Sequence[dict[str, Any]]) -> list[str]:
    """The rows as a table for people."""
    return format_table([("run", *_HEAD), *((one["run"], *_cells(one)) for one in rows)])


def course(run: Path) -> Course:
    """The records of a run, named by its folder."""
    from trainer.run.report.curves import Course

    return Course(str(run), *by_event(read_metrics(run)))


def write(path: Path, courses: Sequence[Course], found: dict[str, Any]) -> None:
    """Write the curves over each other: a picture, or by its suffix a page with the table too.

    Args:
        found: from `compare_all`.

    Raises:
        UserError: the file cannot be written.
    """
    from trainer.run.report import curves, pages, plots

    figures = curves.draw_overlaid(courses)
    with report_write_errors("--output", path):
        if path.suffix == ".png":
            plots.save_row(figures, path)
            return
        page = pages.render(
            "compare.html",
            found=found,
            head=_HEAD,
            rows=[
                {"run": one["run"], "colour": curves.colour(place), "cells": _cells(one)}
                for place, one in enumerate(found["runs"])
            ],
            curves=[pages.image_uri(picture) for picture in plots.draw_row(figures)],
        )
        write_text(path, page)


_HEAD = ("epochs", "steps", "train loss", "best validation", "test", "seconds")


def _cells(one: dict[str, Any]) -> tuple[str, ...]:
    loss = one["train_loss"]
    return (
        f"{one['epochs']:,}",
        f"{one['steps']:,}",
        "-" if loss is None else f"{loss:.4f}",
        percent(one["best_validation_accuracy"]),
        percent(one["test_accuracy"]),
        f"{one['seconds']:,.1f}",
    )
