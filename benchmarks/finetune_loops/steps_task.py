"""What the contenders of finetune_steps.py are, and what each is given."""

from __future__ import annotations

from dataclasses import dataclass

PLAIN, WHOLE, FROZEN, CACHED = "plain", "whole", "frozen", "cached"

_FREEZE = ["--train.freeze", "backbone", "--train.unfreeze_epoch", "null"]
MORE = {WHOLE: [], FROZEN: _FREEZE, CACHED: [*_FREEZE, "--train.cache_features", "true"]}
"""words for train.py"""

TITLES = {
    PLAIN: "a plain loop",
    WHOLE: "**Lockstep**",
    FROZEN: "the same, `train.freeze: backbone`",
    CACHED: "the same, with `train.cache_features`",
}


@dataclass(frozen=True)
class StepsTask:
    """A training, as JSON."""

    root: str
    """folder of the arrays"""
    folder: str
    """for files of the run"""
    classes: int
    batch_size: int
    epochs: int
