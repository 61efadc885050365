"""Check what the configuration says of a teacher."""

from __future__ import annotations

import re
from collections.abc import Callable

from trainer.config.schema import TrainConfig


def check(train: TrainConfig, require: Callable[[str, bool, str], None]) -> None:
    """Check the keys, by `require` of `rules`."""
    require("train.teacher", train.teacher != "", "a name (is a variable of the shell not set?)")
    sha256, has_none = train.teacher_sha256, train.teacher is None
    require(
        "train.teacher_sha256",
        sha256 is None or re.fullmatch("[0-9a-f]{64}", sha256) is not None,
        "null or 64 digits from 0 to f",
    )
    for key, value in (("model", train.teacher_model), ("sha256", sha256)):
        rule = "null where train.teacher is null"
        require(f"train.teacher_{key}", value is None or not has_none, rule)
    require("train.teacher_weight", 0 < train.teacher_weight <= 1, "above 0 and at most 1")
    require("train.temperature", 0 < train.temperature <= 100, "above 0 and at most 100")
