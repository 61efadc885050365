"""The position of a run and its figures so far."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any


@dataclasses.dataclass
class RunState:
    """What a resume needs in addition to the tensors."""

    epoch: int = 1
    """the current epoch, from 1; one more than the last when all are done"""
    step: int = 0
    """optimiser steps done in the whole run"""
    loss_sum: float = 0.0
    """sum of the losses of the current epoch's samples that were trained on"""
    hits: float = 0.0
    """the number of them that were classified correctly"""
    trained_samples: int = 0
    """the number of these samples"""
    epoch_samples: int = 0
    """the same with those of omitted steps"""
    epoch_seconds: float = 0.0
    """time spent training in the current epoch"""
    train_seconds: float = 0.0
    """time spent training in the epochs before"""
    last_accuracy: float | None = None
    """validation accuracy of the last epoch; of images with several labels average precision"""
    best_accuracy: float | None = None
    """that of the best epoch so far"""
    best_figure: float | None = None
    """its figure by train.choose_by; None: by the rule of older versions"""
    best_loss: float | None = None
    """its validation loss, by which equal figures are told apart; None: likewise"""
    best_epoch: int | None = None
    """which it is"""
    best_step: int | None = None
    """the last step of that epoch"""
    plateaus: int = 0
    """how often schedule.name plateau has lowered the learning rate"""
    plateau_epoch: int = 0
    """the epoch at whose end it last did"""
    skipped_steps: list[int] = dataclasses.field(default_factory=list)
    """omitted steps, in rising order, whose loss was not finite"""
    rounding: list[str] = dataclasses.field(default_factory=list)
    """why the run is equal only to rounding and not in bits"""
    observer: dict[str, Any] = dataclasses.field(default_factory=dict)
    """what the observer gets back on a resume"""

    def note_plateau(self, most_epochs: int) -> None:
        """Count a plateau if so many epochs have passed since better weights and since the last."""
        if self.epoch - max(self.best_epoch or 0, self.plateau_epoch) >= most_epochs:
            self.plateaus += 1
            self.plateau_epoch = self.epoch

    def note_rounding(self, reasons: Iterable[str]) -> None:
        """Remember why the run is not equal in bits, each reason once."""
        self.rounding += [reason for reason in reasons if reason not in self.rounding]
