"""The figures of an epoch's validation, and whether its weights are the best so far."""

from __future__ import annotations

from dataclasses import dataclass

from trainer.base.errors import UserError
from trainer.config.schema import ChoiceName
from trainer.data.dataset import Dataset
from trainer.training import ranking
from trainer.training.confusion import count_confusion
from trainer.training.label_metrics import LabelPredictions
from trainer.training.metrics import Predictions
from trainer.training.run_state import RunState


@dataclass(frozen=True)
class ValidationFigures:
    """What the validation images say of the weights at the end of an epoch."""

    loss: float
    accuracy: float
    balanced_accuracy: float
    macro_f1: float
    auc: float | None
    """ROC-AUC, the mean over the classes against the rest; None: it was not asked for"""

    def record(self) -> dict[str, float | None]:
        """Return them as metrics.jsonl has them."""
        found: dict[str, float | None] = {
            "validation_loss": self.loss,
            "validation_accuracy": self.accuracy,
            "validation_balanced_accuracy": self.balanced_accuracy,
            "validation_macro_f1": self.macro_f1,
        }
        return found if self.auc is None else found | {"validation_auc": self.auc}


NO_FIGURES: dict[str, float | None] = {
    "validation_loss": None,
    "validation_accuracy": None,
    "validation_balanced_accuracy": None,
    "validation_macro_f1": None,
}
"""of a run without validation images"""


def check(choose_by: ChoiceName, dataset: Dataset) -> None:
    """Make sure that the validation images have the figure to choose by.

    Raises:
        UserError: it is the AUC, and they are of one class.
    """
    present = sorted(set(dataset.validation.targets.tolist())) if choose_by == "auc" else []
    if len(present) == 1:
        raise UserError(
            f"train.choose_by: auc: all {len(dataset.validation):,} validation images are of one "
            f"class, {dataset.class_names[present[0]]}, so there is no other to tell it from; hold "
            f"out more (data.validation_size), or choose by another figure"
        )


def judge(predictions: Predictions, classes: int) -> ValidationFigures:
    """Return the figures of an epoch.

    Args:
        predictions: of the validation images; with the probabilities of all classes where the AUC
            is wanted.
    """
    counts = count_confusion(predictions.target, predictions.predicted, classes)
    auc = None
    if predictions.probabilities is not None:
        auc = ranking.linearise(predictions.target, predictions.probabilities).roc_auc
    return ValidationFigures(
        predictions.mean_loss, predictions.accuracy, counts.balanced_accuracy, counts.macro_f1, auc
    )


def judge_labels(
    predictions: LabelPredictions,
) -> tuple[ValidationFigures, dict[str, float | None]]:
    """Return the figures of an epoch on images with several labels, and their record.

    They are judged by the mean average precision in the place of the accuracy.
    """
    figure, loss = predictions.average_precision or 0.0, predictions.mean_loss
    record: dict[str, float | None] = {
        "validation_loss": loss,
        "validation_accuracy": predictions.accuracy,
        "validation_average_precision": figure,
    }
    return ValidationFigures(loss, figure, figure, figure, None), record


def note(state: RunState, figures: ValidationFigures, choose_by: ChoiceName) -> bool:
    """Note an epoch in the state, and return whether it is the best so far by `train.choose_by`.

    Of equal figures that of the lower loss is better, and of equal losses too the first.
    """
    state.last_accuracy = figures.accuracy
    if choose_by == "first_accuracy":  # as versions did that knew no other; the first stays
        is_best = state.best_accuracy is None or figures.accuracy > state.best_accuracy
    else:
        figure = figures.loss if choose_by == "loss" else getattr(figures, choose_by)
        before = state.best_figure
        rise = None if before is None else (figure - before) * (-1 if choose_by == "loss" else 1)
        is_best = rise is None or rise > 0
        if rise == 0:
            is_best = state.best_loss is not None and figures.loss < state.best_loss
        if is_best:
            state.best_figure, state.best_loss = figure, figures.loss
    if is_best:
        state.best_accuracy, state.best_epoch = figures.accuracy, state.epoch
        state.best_step = state.step
    return is_best
