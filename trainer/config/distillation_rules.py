"""Check what the configuration says of a teacher."""

from __future__ import annotations

from trainer.config.data_rules import Require
from trainer.config.schema import TrainConfig
from trainer.config.weights_rules import is_sha256


def check(train: TrainConfig, require: Require) -> None:
    """Check the keys, by `require` of `rules`."""
    require("train.teacher", train.teacher != "", "a name (is a variable of the shell not set?)")
    sha256, has_none = train.teacher_sha256, train.teacher is None
    require(
        "train.teacher_sha256",
        sha256 is None or is_sha256(sha256),
        "null or 64 digits from 0 to f",
    )
    for key, value in (("model", train.teacher_model), ("sha256", sha256)):
        rule = "null where train.teacher is null"
        require(f"train.teacher_{key}", value is None or not has_none, rule)
    require("train.teacher_weight", 0 < train.teacher_weight <= 1, "above 0 and at most 1")
    require("train.temperature", 0 < train.temperature <= 100, "above 0 and at most 100")
