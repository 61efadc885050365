"""Write the report of a finished run, pictures and one HTML page, from the run's files only."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from trainer.base.files import write_text
from trainer.config.schema import LAB_TEST_SAMPLES
from trainer.run.console import worst_rows
from trainer.run.main_figure import has_several_labels
from trainer.run.metrics_log import by_event, read_records
from trainer.run.report import explanations, fonts, health, label_report, pages, plots
from trainer.run.report.curves import draw_curves
from trainer.run.report.explanations import Explanations
from trainer.run.report.figure_rows import figure_rows
from trainer.run.report.health import Health
from trainer.run.report.mistakes import describe_mistakes, read_predictions, worst_mistakes
from trainer.run.report.neighbours import Neighbours
from trainer.run.report.run_facts import command_of, facts_of
from trainer.training.confusion import Confusion, count_confusion
from trainer.training.coverage import THRESHOLDS, coverage_curve
from trainer.training.metrics import CALIBRATION_BINS, calibration_bins

MOST_ROWS = 50
"""of the worst classes, if there are too many for a page"""
LISTED_BYTES = 3_000_000
"""of the table of all classes, where the page has one: of more classes it has the worst"""
MOST_CONFUSED = 20
"""pairs of classes in a table, where a picture is hard to read"""


def write_report(
    output_dir: Path,
    pictures: Callable[[np.ndarray], np.ndarray],
    neighbours: Neighbours | None = None,
    explained: Explanations | None = None,
    examined: Health | None = None,
) -> None:
    """Write the pictures and report.html into `output_dir`.

    Reads config.yaml, metrics.jsonl, results.json, predictions.npz and, if there is one,
    features.png there, so a report can be made again at any time.

    Args:
        pictures: gives the test images at some positions in file order, int64 (n,), as uint8
            (n, height, width) or (n, height, width, 3).
        neighbours: the training images to be shown beside the mistakes.
        explained: maps of what answers come from.
        examined: the layers of the network.

    Raises:
        OSError, KeyError, ValueError, UserError: a file is missing or not what the run wrote.
    """
    results = json.loads((output_dir / "results.json").read_text(encoding="utf-8"))
    if has_several_labels(results["test"]):
        label_report.write(output_dir, results, pictures, examined)
        return
    config_text = (output_dir / "config.yaml").read_text(encoding="utf-8")
    steps, epochs = by_event(read_records(output_dir / "metrics.jsonl"))
    names = [row["name"] for row in results["test"]["per_class"]]
    predictions = read_predictions(output_dir / "predictions.npz")
    confusion = count_confusion(predictions["target"], predictions["predicted"], len(names))
    mistakes = worst_mistakes(predictions)
    bins = calibration_bins(
        predictions["target"] == predictions["predicted"], predictions["probability"]
    )
    images = pictures(mistakes["index"])

    curves = plots.save_row(draw_curves(steps, epochs), output_dir / "curves.png")
    plots.save(plots.draw_confusion(confusion, names), output_dir / "confusion.png")
    plots.save(plots.draw_calibration(bins), output_dir / "calibration.png")
    coverage = coverage_curve(
        predictions["target"] == predictions["predicted"], predictions["probability"]
    )
    answers = (mistakes["target"], mistakes["predicted"], mistakes["probability"])
    plots.save(plots.draw_mistakes(images, *answers, names), output_dir / "mistakes.png")

    page = pages.render(
        "report.html",
        results=results,
        **describe_classes(results["test"], confusion, names),
        mistakes=describe_mistakes(mistakes, images, names, neighbours),
        neighbours=neighbours,
        explained=explanations.describe(explained, pictures, names) if explained else [],
        curves=[pages.image_uri(picture) for picture in curves],
        notes=health.training_notes(steps, epochs),
        examined=examined,
        pictures={
            name: pages.file_uri(output_dir / f"{name}.png")
            for name in ("confusion", "calibration", "features")
            if (output_dir / f"{name}.png").exists()
        },
        calibration={
            "error": bins.error,
            "bins": CALIBRATION_BINS,
            "confidence": float(predictions["probability"].mean(dtype=np.float64)),
        },
        coverage=[(threshold, *coverage.at(threshold)) for threshold in THRESHOLDS],
        coverage_curve=pages.image_uri(plots.draw_row([plots.draw_coverage(coverage)])[0]),
        figures=figure_rows(results["test"]),
        lab_samples=LAB_TEST_SAMPLES,
        facts=facts_of(results),
        config_text=config_text,
        command=command_of(output_dir),
    )
    write_text(output_dir / "report.html", page)


def describe_classes(
    test: dict[str, Any], confusion: Confusion, names: Sequence[str]
) -> dict[str, Any]:
    """Return what a page says of the classes: all of them or, of many, the worst.

    Returns:
        `worst`, the row of the worst class, with the class it was most often taken for (or None);
        `rows`, of the table; `all_rows`, of a second one, the worst first, where `rows` are not
        all; `confused`, the most frequent mistakes, where the classes are many; `undrawn`, the
        numbers and names of classes that the picture of the confusion matrix shows by number;
        `classes`, how many there are; `drawn`, how many columns that picture has; `in_full`,
        whether `confusion` stands in the JSON.
    """
    place = names.index(test["worst_class"])
    mistakes = confusion.mistakes()
    cell = next(iter(mistakes[confusion.true[mistakes] == place].tolist()), None)
    many = len(names) > plots.MOST_CLASSES_DRAWN
    return {
        "worst": {
            **test["per_class"][place],
            "taken_for": None if cell is None else names[confusion.predicted[cell]],
            "taken_count": 0 if cell is None else int(confusion.count[cell]),
        },
        "rows": worst_rows(test["per_class"], plots.MOST_CLASSES_DRAWN, MOST_ROWS),
        "all_rows": list_all(test["per_class"]) if many else [],
        "confused": most_confused(confusion, names),
        "undrawn": undrawn_names(confusion, names),
        "classes": len(names),
        "drawn": plots.MOST_CONFUSED + 1 if many else len(names),
        "in_full": test["confusion"] is not None,
    }


def list_all(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the rows of all classes, the worst first, or as many as LISTED_BYTES allow.

    Those of classes without images come last.
    """
    ordered = sorted(rows, key=lambda row: (not row["support"], row["accuracy"]))
    size = np.cumsum([100 + len(row["name"].encode()) for row in ordered])
    return ordered[: int(np.searchsorted(size, LISTED_BYTES, side="right"))]


def undrawn_names(confusion: Confusion, names: Sequence[str]) -> list[tuple[int, str]]:
    """Return number and name of the classes in the confusion matrix that no font can draw."""
    drawn = plots.drawn_classes(confusion)
    found = fonts.find(names[label] for label in drawn)
    return [(label, names[label]) for label in drawn if not found.draw(names[label])]


def most_confused(confusion: Confusion, names: Sequence[str]) -> list[dict[str, Any]]:
    """Return the most frequent mistakes where there are many classes, the most frequent first.

    Returns:
        Of each the classes `true` and `predicted`, how many images, `count`, and of the `true`
        class's images the `share`.
    """
    if len(names) <= plots.MOST_CLASSES_WITH_LARGE_TEXT:
        return []
    support = confusion.support()
    found = []
    for cell in confusion.mistakes()[:MOST_CONFUSED].tolist():
        true, count = int(confusion.true[cell]), int(confusion.count[cell])
        predicted = names[confusion.predicted[cell]]
        share = count / int(support[true])
        found.append({"true": names[true], "predicted": predicted, "count": count, "share": share})
    return found
