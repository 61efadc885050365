"""The report and the model card that a finished run ends with; their faults cost a warning."""

from __future__ import annotations

from pathlib import Path

from trainer.run import results
from trainer.run.report import explanations, health, mistakes, model_card, neighbours, run_report
from trainer.run.report.attempt import attempt
from trainer.run.report.features import write_features
from trainer.run.report.neighbours import Neighbours
from trainer.training.engine import Engine
from trainer.training.label_metrics import LabelPredictions
from trainer.training.metrics import MOST_CLASSES_IN_FULL, Predictions
from trainer.training.weight_selection import Found


def write_report(folder: Path, engine: Engine, predictions: Found) -> None:
    """Write the card, confusion.npz of many classes, pictures and page, or warn of what fails.

    Args:
        engine: with the chosen weights.
    """
    data, path, device = engine.data, folder / "features.png", engine.accelerator.device
    classes = len(data.class_names)

    def write_feature_picture() -> None:
        path.unlink(missing_ok=True)  # of fewer epochs
        write_features(path, engine.module, data.test, data.scaling, device)

    def find_neighbours() -> Neighbours | None:
        asked = mistakes.read_worst(folder)["index"]
        return neighbours.find(
            engine.module, classes, data.train, data.test, asked, data.scaling, device
        )

    attempt("the model card", lambda: model_card.write(folder))
    if classes > MOST_CLASSES_IN_FULL and isinstance(predictions, Predictions):
        matrix, answers = folder / "confusion.npz", predictions
        attempt(matrix.name, lambda: results.write_confusion(matrix, answers, classes))
    attempt(path.name, write_feature_picture)
    examined = attempt(
        "the report's look at the layers",
        lambda: health.examine(engine.module, data.test, data.scaling, device),
    )
    if isinstance(predictions, LabelPredictions):
        attempt(
            "the report",
            lambda: run_report.write_report(folder, data.test.pictures, examined=examined),
        )
        return
    nearest = attempt("the report's nearest training images", find_neighbours)
    explained = attempt(
        "the report's maps of where it looked",
        lambda: explanations.find(folder, engine.module, data.test, data.scaling, device),
    )
    attempt(
        "the report",
        lambda: run_report.write_report(folder, data.test.pictures, nearest, explained, examined),
    )
