"""Read the answers that a run has kept in its predictions.npz, which somebody may have sent."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from trainer.base.errors import UserError
from trainer.training.label_metrics import LabelPredictions
from trainer.training.metrics import Predictions

_ANSWERS = ("target", "predicted", "probability")
_LABEL_ANSWERS = ("target", "probabilities", "loss", "thresholds")


def read(path: Path) -> Predictions:
    """Return the answers in a predictions.npz or an out_of_fold.npz.

    Their losses are NaN and their probabilities None where an older version wrote the file.

    Raises:
        UserError: the file is missing or damaged.
    """
    try:
        with np.load(path, allow_pickle=False) as arrays:
            columns = {name: arrays[name] for name in _ANSWERS}
            loss = arrays["loss"] if "loss" in arrays else np.full(len(columns["target"]), np.nan)
            probabilities = arrays.get("probabilities")
    except Exception as error:  # of NumPy and zipfile: damage can raise anything
        raise UserError(f"{path}: damaged or missing ({_reason(error)})") from error
    found = Predictions(**columns, loss=loss, probabilities=probabilities)
    shapes = {array.shape[:1] for array in (*columns.values(), loss)}
    if probabilities is not None:
        shapes.add(probabilities.shape[:1])
    if len(shapes) != 1 or not len(found):
        raise UserError(f"{path}: damaged, its columns have no rows or not the same number of them")
    return found


def read_labels(path: Path) -> LabelPredictions:
    """Return the answers in such a file where images may have several labels.

    Raises:
        UserError: the file is missing or damaged.
    """
    try:
        with np.load(path, allow_pickle=False) as arrays:
            found = LabelPredictions(*(arrays[name] for name in _LABEL_ANSWERS))
    except Exception as error:  # of NumPy and zipfile: damage can raise anything
        raise UserError(f"{path}: damaged or missing ({_reason(error)})") from error
    shape = found.target.shape
    fits = found.probabilities.shape == shape and found.loss.shape == shape[:1]
    if not (fits and len(shape) == 2 and len(found) and found.thresholds.shape[-1:] == shape[1:]):
        raise UserError(f"{path}: damaged, its columns have other shapes than its labels")
    return found


def _reason(error: Exception) -> str:
    """Say in a few words why a file cannot be read; numpy advises to unpickle it."""
    match error:
        case OSError():
            return error.strerror or str(error)
        case KeyError():
            return str(error.args[0])
        case _:
            return "it has no arrays as a run writes them"
