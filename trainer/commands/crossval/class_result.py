"""The result of a cross-validation on images of one class each."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from trainer.base.files import write_text
from trainer.base.terminal import percent
from trainer.commands.crossval import result
from trainer.commands.crossval.result import Columns, Pictures
from trainer.commands.summary import FinishedRun
from trainer.config.schema import RunConfig
from trainer.finished import stored_predictions
from trainer.run.console import class_table
from trainer.run.report import mistakes, pages, plots, run_report
from trainer.run.report.figure_rows import figure_rows
from trainer.run.results import write_confusion
from trainer.training import figures
from trainer.training.confusion import count_confusion
from trainer.training.metrics import Predictions, per_class_results

ANSWERS = ("target", "predicted", "probability", "loss", "probabilities")
"""the columns of out_of_fold.npz that each fold's predictions.npz has"""


def write_result(folds: Sequence[RunConfig]) -> dict[str, Any]:
    """Write everything next to the folders of the folds, and print it; as of `result`."""
    form = result.Form(_read_answers, summarise, _write_confusion, _write_page, _lines)
    return result.write_result(folds, form)


def summarise(folds: Sequence[FinishedRun], columns: Columns) -> dict[str, Any]:
    """Return what crossval.json contains; accuracies lie between 0 and 1.

    Args:
        columns: as out_of_fold.npz has them.
    """
    first = folds[0].results
    names = [row["name"] for row in first["test"]["per_class"]]
    answers = _answers(columns)
    has_all = answers.probabilities is not None
    return {
        "folds": len(folds),
        "seed": first["seed"],
        "model": first["model"],
        "data": {"name": first["data"]["name"], "samples": len(answers)},
        "accuracy": result.spread([each.results["test"]["accuracy"] for each in folds]),
        "out_of_fold": {
            "accuracy": answers.accuracy,
            "samples": len(answers),
            **(figures.compute(answers, first["seed"]) if has_all else {}),
            **per_class_results(answers, names),
        },
        "runs": [result.row_of(each) for each in folds],
    }


def _read_answers(path: Path) -> Columns:
    found = vars(stored_predictions.read(path))
    return {name: found[name] for name in ANSWERS if found[name] is not None}


def _answers(columns: Columns) -> Predictions:
    return Predictions(**{name: columns.get(name) for name in ANSWERS})  # type: ignore[arg-type]


def _write_confusion(path: Path, found: dict[str, Any], columns: Columns) -> None:
    """Write confusion.npz where crossval.json has no matrix."""
    if found["out_of_fold"]["confusion"] is None:
        classes = len(found["out_of_fold"]["per_class"])
        write_confusion(path / "confusion.npz", _answers(columns), classes)


def _lines(found: dict[str, Any], path: Path) -> list[str]:
    pooled = found["out_of_fold"]
    head = ("images", "accuracy")
    folds = [
        (str(each["fold"]), f"{each['samples']:,}", percent(each["accuracy"]))
        for each in found["runs"]
    ]
    classes = class_table(
        pooled["per_class"],
        pooled["worst_class"],
        head,
        lambda row: (f"{row['support']:,}", percent(row["accuracy"] if row["support"] else None)),
    )
    return result.lines_of("mean", found["accuracy"], [("fold", *head), *folds], classes, path)


def _write_page(
    path: Path,
    found: dict[str, Any],
    columns: Columns,
    pictures: Pictures,
) -> None:
    """Write confusion.png and crossval.html, after recipe.yaml."""
    pooled = found["out_of_fold"]
    names = [row["name"] for row in pooled["per_class"]]
    confusion = count_confusion(columns["target"], columns["predicted"], len(names))
    plots.save(plots.draw_confusion(confusion, names), path / "confusion.png")
    worst = mistakes.worst_mistakes(columns)
    page = pages.render(
        "crossval.html",
        found=found,
        results={"test": pooled},
        **run_report.describe_classes(pooled, confusion, names),
        figures=figure_rows(pooled),
        mistakes=mistakes.describe_mistakes(worst, pictures(worst["index"]), names),
        confusion=pages.file_uri(path / "confusion.png"),
        facts=result.facts_of(found),
        config_text=(path / "recipe.yaml").read_text(encoding="utf-8"),
        command=result.command_of(path, found["folds"]),
    )
    write_text(path / "crossval.html", page)
