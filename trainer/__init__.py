"""Trains convolutional image classifiers; this module is what a program of one's own begins with.

from trainer import load_model
model = load_model("runs/fashion_mnist")
print(model.classify("boot.png"))
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from trainer.finished.trained_model import TrainedModel

__all__ = ["load_model"]


def load_model(run: Path | str, model: str | None = None) -> TrainedModel:
    """The model that a finished run has left, on the CPU and ready for use.

    Args:
        run: the run's folder, or its model.safetensors wherever it lies.
        model: `path/to/file.py:ClassName` or `timm:NAME` where the network is none of Lockstep's
            own; code runs only where it is named here, whatever the file says.

    Raises:
        trainer.base.errors.UserError: there is no such file, it is damaged, or it does not fit.
    """
    from trainer.finished import trained_model  # torch takes seconds to import

    return trained_model.load(Path(run), model)
