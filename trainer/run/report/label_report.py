"""Write the report of a run on images that may have several labels, from the run's files only."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from trainer.base.files import write_text
from trainer.data.label_matrix import names_of
from trainer.run.console import worst_rows
from trainer.run.metrics_log import by_event, read_records
from trainer.run.report import health, pages, plots
from trainer.run.report.curves import draw_curves
from trainer.run.report.health import Health
from trainer.run.report.run_facts import command_of, facts_of

MOST_ROWS = 50
"""of the worst labels, if there are too many for a page"""
MOST_MISTAKES = 24
NOT_RECORDED = "not recorded"
"""of a figure that the version which did the run did not have"""

FIGURES = {
    "average_precision": ("mAP", "mean of the labels' average precisions"),
    "roc_auc": ("ROC-AUC", "how often an image with a label is more probable than one without"),
    "micro_f1": ("Micro F1", "of all labels together"),
    "macro_f1": ("Macro F1", "mean over the labels"),
    "subset_accuracy": ("All labels right", "images without a wrong or a missing label"),
}


def write(
    output_dir: Path,
    results: dict[str, Any],
    pictures: Callable[[np.ndarray], np.ndarray],
    examined: Health | None,
) -> None:
    """Write curves.png and report.html; arguments and errors as of `run_report.write_report`.

    Args:
        results: what results.json holds.
    """
    test = results["test"]
    names = [row["name"] for row in test["per_class"]]
    steps, epochs = by_event(read_records(output_dir / "metrics.jsonl"))
    with np.load(output_dir / "predictions.npz", allow_pickle=False) as arrays:
        columns = {key: arrays[key] for key in ("target", "predicted", "probabilities", "loss")}
    asked = worst_answers(columns)
    images = pictures(asked)
    curves = plots.save_row(draw_curves(steps, epochs), output_dir / "curves.png")
    features = output_dir / "features.png"
    page = pages.render(
        "label_report.html",
        results=results,
        figures=figure_rows(test),
        rows=worst_rows(
            test["per_class"], plots.MOST_CLASSES_DRAWN, MOST_ROWS, "average_precision"
        ),
        classes=len(names),
        mistakes=describe_answers(columns, asked, images, names),
        curves=[pages.image_uri(picture) for picture in curves],
        notes=health.training_notes(steps, epochs),
        examined=examined,
        features=pages.file_uri(features) if features.exists() else None,
        facts=facts_of(results),
        config_text=(output_dir / "config.yaml").read_text(encoding="utf-8"),
        command=command_of(output_dir),
    )
    write_text(output_dir / "report.html", page)


def figure_rows(test: Mapping[str, Any]) -> list[dict[str, str]]:
    """Return a row for each figure: label, value, interval and meaning, as text.

    Args:
        test: the part of results.json; an older version has not recorded every figure.
    """
    intervals, rows = test.get("intervals", {}), []
    for key, (label, meaning) in FIGURES.items():
        value = pages.percent(test[key]) if key in test else NOT_RECORDED
        interval = " to ".join(map(pages.percent, intervals.get(key) or ()))
        row = {"label": label, "value": value, "interval": interval, "meaning": meaning}
        rows.append(row)
    return rows


def worst_answers(columns: dict[str, np.ndarray]) -> np.ndarray:
    """Return the positions of the images with a wrong or a missing label, of largest loss first."""
    wrong = np.flatnonzero((columns["target"] != columns["predicted"]).any(1))
    return wrong[np.argsort(-columns["loss"][wrong], kind="stable")][:MOST_MISTAKES]


def describe_answers(
    columns: dict[str, np.ndarray], asked: np.ndarray, images: np.ndarray, names: Sequence[str]
) -> list[dict[str, Any]]:
    """Return what a page shows of some images: the labels that are right, wrong and missing.

    Args:
        asked: their positions, int64 (k,).
        images: uint8 (k, height, width) or (k, height, width, 3).
    """
    found = []
    for place, image in zip(asked.tolist(), images, strict=True):
        target, predicted = columns["target"][place] > 0, columns["predicted"][place] > 0
        shares = dict(zip(names, columns["probabilities"][place].tolist(), strict=True))
        kinds = {
            "right": target & predicted,
            "wrong": predicted & ~target,
            "missing": target & ~predicted,
        }
        labels = {
            kind: [(name, shares[name]) for name in names_of(rows, names)]
            for kind, rows in kinds.items()
        }
        found.append({"picture": pages.picture(image, pages.LARGE), "index": place} | labels)
    return found
