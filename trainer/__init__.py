"""Train convolutional image classifiers; your own program begins with this module.

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
    """Load the model of a finished run, on the CPU and ready for use.

    Args:
        run: the run's folder, or its model.safetensors.
        model: `path/to/file.py:ClassName` or `timm:NAME` if the network is not Lockstep's;
            code runs only if it is named here, whatever the file says.

    Raises:
        trainer.base.errors.UserError: there is no such file, it is damaged, or it does not fit.
    """
    from trainer.finished import trained_model  # torch takes seconds to import

    return trained_model.load(Path(run), model)
