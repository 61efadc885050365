"""The result of a cross-validation on images that may have several labels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np

from trainer.base.files import write_file, write_json, write_text
from trainer.base.terminal import format_table, percent
from trainer.commands.crossval import result
from trainer.commands.crossval.result import Columns
from trainer.commands.summary import FinishedRun
from trainer.config import command_line
from trainer.config.schema import RunConfig, folder_of
from trainer.data.loading import load_training
from trainer.data.sources import reading
from trainer.run.console import class_table, worst_rows
from trainer.run.report import label_report, pages, plots
from trainer.run.report.attempt import attempt
from trainer.training.label_metrics import LabelPredictions, label_results

_COLUMNS = ("index", "target", "predicted", "probabilities", "loss", "thresholds")


def write_result(folds: Sequence[RunConfig]) -> dict[str, Any]:
    """Write everything next to the folders of the folds, and print it; as of `result`."""
    finished = [result.read_fold(folder_of(each)) for each in folds]
    path = finished[0].folder.parent
    recipe = result.common_recipe(finished)
    reading.prepare(folds[0].data)
    images, groups = load_training(folds[0].data)
    columns = result.gather(folds, finished, images, groups, _read_predictions)
    found = summarise(finished, columns)
    write_json(path / "crossval.json", found)
    write_file(path / "out_of_fold.npz", lambda file: np.savez(file, **cast(Any, columns)))
    write_text(path / "recipe.yaml", command_line.to_yaml(recipe))
    attempt("the report", lambda: _write_page(path, found, columns, images.pictures))
    print("\n".join(_lines(found, path)), flush=True)
    return found


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
    precision, pooled = found["average_precision"], found["out_of_fold"]
    low, high = map(percent, precision["interval"])
    head = ("images", "mAP", "all labels")
    folds = [
        (
            str(each["fold"]),
            f"{each['samples']:,}",
            percent(each["average_precision"]),
            percent(each["accuracy"]),
        )
        for each in found["runs"]
    ]
    label_head, *labels = class_table(
        pooled["per_class"],
        pooled["worst_class"],
        ("images", "AP", "F1"),
        lambda row: (
            f"{row['support']:,}",
            percent(row["average_precision"]),
            percent(row["f1"] if row["support"] else None),
        ),
    )
    return [
        "",
        *format_table([("fold", *head), *folds]),
        "",
        f"mean mAP            {percent(precision['mean'])}",
        f"standard deviation  {percent(precision['standard_deviation'])}",
        f"95 % interval       {low} to {high} (Student's t)",
        "The folds are not independent: the interval is a guide, most likely too narrow.",
        "",
        f"{label_head}  out of fold",
        *labels,
        "",
        f"report  {path / 'crossval.html'}",
    ]


def _write_page(
    path: Path,
    found: dict[str, Any],
    columns: Columns,
    pictures: Callable[[np.ndarray], np.ndarray],
) -> None:
    """Write crossval.html, after recipe.yaml; `pictures` as of `result`."""
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
