"""Find the labels that are most likely wrong by the answers of a cross-validation.

Each training image was classified by the network of its own fold, which has not learnt its label.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from trainer.base.errors import UserError
from trainer.base.strict_json import check_type, read_json
from trainer.commands.inspect_data import label_errors
from trainer.commands.inspect_data.image_statistics import InspectedImages
from trainer.data.loading import image_set
from trainer.data.measurements import fingerprint_of
from trainer.data.sources.source_data import Subset
from trainer.finished import stored_predictions
from trainer.training.metrics import Predictions


def find(folder: Path, inspected: InspectedImages) -> dict[str, Any]:
    """Find suspect labels among the images that were divided into folds, as JSON.

    Args:
        folder: of a finished cross-validation.

    Returns:
        As `label_errors.find`.

    Raises:
        UserError: a file of the cross-validation is damaged, or it was made of other images.
    """
    label_errors.check_one_label(inspected)
    divided = {part: one for part, one in inspected.subsets.items() if one.split == "train"}
    answers = _read_answers(folder, inspected, divided)
    suspects = label_errors.find_suspects(answers, len(inspected.dataset.class_names))
    parts, images = [], []
    for part, subset in divided.items():
        if not len(subset.positions):
            continue
        place_of = {index: place for place, index in enumerate(subset.positions.tolist())}
        rows = [row for row in suspects.tolist() if row in place_of]
        parts.append({"part": part, "samples": len(subset.positions), "count": len(rows)})
        images += [
            label_errors.describe(inspected, (part, place_of[row]), answers, row) for row in rows
        ]
    return label_errors.report(inspected, folder, parts, images, own_images=True)


def _read_answers(
    folder: Path, inspected: InspectedImages, divided: dict[str, Subset]
) -> Predictions:
    """Read the out-of-fold answers: a row for each training image that is used, in file order.

    Raises:
        UserError: as `find`.
    """
    path = folder / "crossval.json"
    data: dict[str, Any] = read_json(path).get("data", {})
    check_type(data, dict[str, Any], f"{path}: data")
    fingerprint = data.get("fingerprint")
    check_type(fingerprint, str | None, f"{path}: data.fingerprint")
    if fingerprint is None:
        raise UserError(
            f"{path}: an older version wrote it, which did not say of which images; give the same "
            "crossval command again: it trains nothing that is finished, and writes it anew"
        )
    answers = stored_predictions.read(folder / "out_of_fold.npz")
    classes = range(len(inspected.dataset.class_names))
    if not np.isin(answers.predicted, classes).all():
        raise UserError(f"{folder / 'out_of_fold.npz'}: damaged, it has answers that are no class")
    if np.isnan(answers.loss).any():
        raise UserError(
            f"{folder / 'out_of_fold.npz'}: its folds were trained by an older version, which kept "
            "no losses; train them again in an empty folder"
        )
    positions: npt.NDArray[np.int64] = np.sort(
        np.concatenate([subset.positions for subset in divided.values()])
    )
    (whole, *_) = divided.values()
    is_same = np.array_equal(positions, np.arange(len(answers)))
    if is_same:
        chosen = whole.data.select(positions)
        is_same = fingerprint_of(image_set(chosen)) == fingerprint
        is_same = is_same and np.array_equal(chosen.labels, answers.target)
    if not is_same:
        raise UserError(
            f"data.root: the training images of {inspected.dataset.source}, or their labels, are "
            f"not those of the cross-validation in {folder}: its answers are about others. Look at "
            "them as they were, or train the folds again in an empty folder"
        )
    return answers
