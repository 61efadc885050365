"""The most confident wrong answers of a run, and what a page shows of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from trainer.run.report import pages
from trainer.run.report.neighbours import Neighbours

MOST_MISTAKES = 24


def read_predictions(path: Path) -> dict[str, np.ndarray]:
    """Read the columns of predictions.npz: index, target, predicted, probability, each (n,)."""
    with np.load(path, allow_pickle=False) as arrays:
        return {name: arrays[name] for name in ("index", "target", "predicted", "probability")}


def worst_mistakes(columns: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the rows of the most confident wrong answers, the most confident first."""
    wrong = np.flatnonzero(columns["target"] != columns["predicted"])
    order = np.argsort(-columns["probability"][wrong], kind="stable")
    return {name: column[wrong[order[:MOST_MISTAKES]]] for name, column in columns.items()}


def read_worst(run: Path) -> dict[str, np.ndarray]:
    """Read the rows of a run's most confident wrong answers, as `worst_mistakes`."""
    return worst_mistakes(read_predictions(run / "predictions.npz"))


def describe_mistakes(
    columns: dict[str, np.ndarray],
    images: np.ndarray,
    names: Sequence[str],
    neighbours: Neighbours | None = None,
) -> list[dict[str, Any]]:
    """Return what a page shows of mistakes.

    Args:
        columns: from `worst_mistakes`.
        images: their images, uint8 (n, height, width) or (n, height, width, 3).
        names: of the classes.
        neighbours: of these mistakes.
    """
    return [
        {
            "picture": pages.picture(image, pages.MIDDLE),
            "index": int(columns["index"][place]),
            "true": names[columns["target"][place]],
            "predicted": names[columns["predicted"][place]],
            "probability": float(columns["probability"][place]),
            "nearest": _describe_nearest(neighbours, place, names) if neighbours else [],
        }
        for place, image in enumerate(images)
    ]


def _describe_nearest(
    neighbours: Neighbours, place: int, names: Sequence[str]
) -> list[dict[str, Any]]:
    """Return what a page shows of the training images that are nearest to a mistake."""
    return [
        {
            "picture": pages.picture(image, pages.SMALL),
            "name": names[target],
            "cosine": float(cosine),
        }
        for image, target, cosine in zip(
            neighbours.images[place],
            neighbours.targets[place],
            neighbours.cosines[place],
            strict=True,
        )
    ]
