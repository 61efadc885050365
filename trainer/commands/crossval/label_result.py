"""The result of a cross-validation on images that may have several labels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from trainer.base.files import write_text
from trainer.base.terminal import percent
from trainer.commands.crossval import result
from trainer.commands.crossval.result import Columns, Pictures
from trainer.commands.summary import FinishedRun
from trainer.config.schema import RunConfig
from trainer.run.console import class_table, worst_rows
from trainer.run.report import label_report, pages, plots
from trainer.training.label_metrics import LabelPredictions, label_results

_COLUMNS = ("index", "target", "predicted", "probabilities", "loss", "thresholds")


def write_result(folds: Sequence[RunConfig]) -> dict[str, Any]:
    """Write everything next to the folders of the folds, and print it; as of `result`."""
    form = result.Form(_read_predictions, summarise, lambda *_: None, _write_page, _lines)
    return result.write_result(folds, form)


def _read_predictions(path: Path) -> Columns:
    """Read the columns of a fold's predictions.npz, its thresholds once for each image."""
    with np.load(path, allow_pickle=False) as arrays:
        columns = {name: arrays[name] for name in _COLUMNS}
    thresholds = np.broadcast_to(columns["thresholds"], columns["target"].shape)
    return columns | {"thresholds": thresholds}


def summarise(folds: Sequence[FinishedRun], columns: Columns) -> dict[str, Any]:
    """Return what crossval.json contains; every answer is by the thresholds of its own fold.

    Args:
        columns: as out_of_fold.npz has them.
    """
    first, tests = folds[0].results, [each.results["test"] for each in folds]
    names = [row["name"] for row in first["test"]["per_class"]]
    answers = LabelPredictions(
        *(columns[key] for key in ("target", "probabilities", "loss", "thresholds"))
    )
    precisions = [test["average_precision"] for test in tests]
    return {
        "folds": len(folds),
        "seed": first["seed"],
        "model": first["model"],
        "data": {"name": first["data"]["name"], "samples": len(answers)},
        "accuracy": result.spread([test["accuracy"] for test in tests]),
        "average_precision": result.spread([one for one in precisions if one is not None]),
        "out_of_fold": label_results(answers, names, first["seed"]),
        "runs": [
            result.row_of(each) | {"average_precision": precision}
            for each, precision in zip(folds, precisions, strict=True)
        ],
    }


def _lines(found: dict[str, Any], path: Path) -> list[str]:
    pooled, head = found["out_of_fold"], ("images", "mAP", "all labels")
    folds = [
        (
            str(each["fold"]),
            f"{each['samples']:,}",
            percent(each["average_precision"]),
            percent(each["accuracy"]),
        )
        for each in found["runs"]
    ]
    labels = class_table(
        pooled["per_class"],
        pooled["worst_class"],
        ("images", "AP", "F1"),
        lambda row: (
            f"{row['support']:,}",
            percent(row["average_precision"]),
            percent(row["f1"] if row["support"] else None),
        ),
        figure="average_precision",
    )
    table = [("fold", *head), *folds]
    return result.lines_of("mean mAP", found["average_precision"], table, labels, path)


def _write_page(
    path: Path,
    found: dict[str, Any],
    columns: Columns,
    pictures: Pictures,
) -> None:
    """Write crossval.html, after recipe.yaml."""
    pooled = found["out_of_fold"]
    names = [row["name"] for row in pooled["per_class"]]
    asked = label_report.worst_answers(columns)
    page = pages.render(
        "label_crossval.html",
        found=found,
        results={"test": pooled},
        rows=worst_rows(
            pooled["per_class"], plots.MOST_CLASSES_DRAWN, label_report.MOST_ROWS,
            "average_precision",
        ),
        classes=len(names),
        mistakes=label_report.describe_answers(columns, asked, pictures(asked), names),
        facts=result.facts_of(found),
        config_text=(path / "recipe.yaml").read_text(encoding="utf-8"),
        command=result.command_of(path, found["folds"]),
    )  # fmt: skip
    write_text(path / "crossval.html", page)
