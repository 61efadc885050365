"""Find the labels that are most likely wrong, by models that have not learnt them.

After C. G. Northcutt, L. Jiang, I. L. Chuang: Confident Learning: Estimating Uncertainty in Dataset
Labels, 2021. The self-confidence of an image is the probability that the model gives to its label.
A label is suspect where the model prefers another class at least as confidently as it is, on
average, of the images with that label. The list begins with the lowest self-confidence. (Where the
model's first choice is less confident, the paper looks at its other choices too.)
"""

from __future__ import annotations

import io
import logging
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from trainer.base import csv_rows
from trainer.base.errors import UserError
from trainer.base.files import write_text
from trainer.commands.inspect_data.image_statistics import InspectedImages, Place
from trainer.data.pictures.names import join_some
from trainer.finished.run_record import are_images_of_run
from trainer.finished.trained_model import TrainedModel
from trainer.training.metrics import Predictions

if TYPE_CHECKING:
    from accelerate import Accelerator

HELD_OUT = ("validation", "test")
"""the splits whose labels, the wrong ones too, the model has not learnt"""

JUDGES = {
    "train": "the model has learnt these labels; the folder of a crossval judges them",
    "validation": "they are in no fold; the folder of a run judges them",
    "test": "they are in no fold; the folder of a run judges them",
}
"""who judges the labels of a part that has not been judged"""

COLUMNS = {
    "name": "file",
    "part": "part",
    "class": "label",
    "self_confidence": "label_probability",
    "suggested": "likely_label",
    "probability": "likely_probability",
}
"""what is known of an image with a suspect label, and how the CSV calls it"""

log = logging.getLogger("lockstep")


def find(
    accelerator: Accelerator, stored: TrainedModel, inspected: InspectedImages
) -> dict[str, Any]:
    """Find suspect labels among the validation and test images, as JSON; a collective.

    Returns:
        As `report`.

    Raises:
        UserError: the model knows other images or classes.
    """
    check_one_label(inspected)
    _check_fit(stored, inspected)
    stored = stored.prepare(accelerator)
    parts, images = [], []
    for part in HELD_OUT:
        one = inspected.splits[part]
        if not len(one):
            continue
        (found,) = stored.predict_set(accelerator, one, f"classifying {part}")
        assert isinstance(found, Predictions), "images of one class each"
        suspect = find_suspects(found, len(stored.class_names))
        parts.append({"part": part, "samples": len(one), "count": len(suspect)})
        images += [
            describe(inspected, (part, position), found, position) for position in suspect.tolist()
        ]
    own = are_images_of_run(stored.file.parent, inspected.dataset.fingerprint, None)
    if own is False and accelerator.is_main_process:
        log.warning(
            "the images are not those of the run in %s: it may have learnt some of these labels, "
            "the wrong ones too",
            stored.file.parent,
        )
    return report(inspected, stored.file.parent, parts, images, own_images=own)


def describe(
    inspected: InspectedImages, place: Place, predictions: Predictions, row: int
) -> dict[str, Any]:
    """Return an image with a suspect label as JSON, with its row of the predictions."""
    return inspected.describe(place) | {
        "self_confidence": math.exp(-float(predictions.loss[row])),
        "suggested": inspected.dataset.class_names[predictions.predicted[row]],
        "probability": float(predictions.probability[row]),
    }


def report(
    inspected: InspectedImages,
    folder: Path,
    parts: list[dict[str, Any]],
    images: list[dict[str, Any]],
    *,
    own_images: bool | None,
) -> dict[str, Any]:
    """Return what was found as JSON.

    Args:
        folder: of the run, or of the cross-validation.

    Returns:
        The `run`, its folder; whether these are its `own_images`; of the `parts` that were judged
        how many `samples` and suspect labels; of those that were `not_judged` the `samples`; and
        the `images` with suspect labels, the least self-confident first.
    """
    judged = {part["part"] for part in parts}
    return {
        "run": str(folder),
        "own_images": own_images,
        "parts": parts,
        "not_judged": [
            {"part": part, "samples": len(images)}
            for part, images in inspected.splits.items()
            if part not in judged and len(images)
        ],
        "images": sorted(images, key=lambda image: image["self_confidence"]),
    }


def write_csv(path: Path, suspects: Mapping[str, Any]) -> None:
    """Write a row for each suspect label, in the order of `find`.

    Raises:
        OSError: it cannot be written.
    """
    text = io.StringIO()
    rows = csv_rows.writer(text)
    rows.writerow(COLUMNS.values())
    rows.writerows([image[key] for key in COLUMNS] for image in suspects["images"])
    write_text(path, text.getvalue())


def find_suspects(predictions: Predictions, classes: int) -> np.ndarray:
    """Return the positions of images with suspect labels, the least self-confident first."""
    confidence = np.exp(-predictions.loss.astype(np.float64))
    counts = np.bincount(predictions.target, minlength=classes)
    totals = np.bincount(predictions.target, confidence, minlength=classes)
    # Nothing is known of a class without images.
    usual = np.where(counts > 0, totals / np.maximum(counts, 1), np.inf)
    wrong = predictions.predicted != predictions.target
    wrong &= predictions.probability >= usual[predictions.predicted]
    positions = np.flatnonzero(wrong)
    return positions[np.argsort(confidence[positions], kind="stable")]


def check_one_label(inspected: InspectedImages) -> None:
    """Raise a `UserError` if an image may have several labels."""
    if inspected.dataset.test.targets.ndim == 2:
        raise UserError(
            "data.multi_label: labels that are most likely wrong are found where each image has "
            "one; look at the images by their configuration, without the run"
        )


def _check_fit(stored: TrainedModel, inspected: InspectedImages) -> None:
    dataset = inspected.dataset
    shape = tuple(dataset.test.images.shape[1:])
    wanted = (stored.channels, *stored.image_size)
    if shape != wanted or dataset.class_names != stored.class_names:
        raise UserError(
            f"data.root: {dataset.source} has images of (channels, height, width) {shape} and the "
            f"classes {join_some(dataset.class_names)}; the model of {stored.file.parent} knows "
            f"{wanted} and {join_some(stored.class_names)}"
        )
