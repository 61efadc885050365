"""Fill a network from a file, as a run does with model.weights."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from torch import nn

from trainer.config.schema import ModelConfig
from trainer.network import starting_weights, weights_sources
from trainer.network.model_state import remember_initial
from trainer.network.weights_fit import Fit


def load_weights(
    model: nn.Module,
    path: Path,
    classes: Sequence[str] = ("cat", "dog", "fox"),
    theirs: tuple[str, ...] | None = None,
) -> Fit:
    """Do it, and return how the file fits.

    Args:
        classes: of the data.
        theirs: of the file; None: what the file says.
    """
    remember_initial(model)
    found = weights_sources.find(ModelConfig(weights=str(path)))
    assert found is not None
    if theirs:
        found = dataclasses.replace(found, class_names=theirs)
    start = starting_weights.read(model, found, classes)
    start.load_into(model)
    return start.fit
