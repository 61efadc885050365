"""Check what the configuration says of the weights to start from."""

from __future__ import annotations

import re

from trainer.config.data_rules import Require
from trainer.config.schema import ModelConfig

REPOSITORY = r"[A-Za-z0-9_.-]+/[A-Za-z0-9_.-]+"
HUB_NAME = rf"hf:(?P<repository>{REPOSITORY})(?:@(?P<revision>[A-Za-z0-9_./-]+))?"


def is_sha256(text: str) -> bool:
    """Return whether a text may be a SHA-256, as these files write it."""
    return re.fullmatch("[0-9a-f]{64}", text) is not None


def check(model: ModelConfig, require: Require) -> None:
    """Check the keys, by `require` of `rules`."""
    weights, sha256 = model.weights, model.weights_sha256
    require("model.weights", weights != "", "a name (is a variable of the shell not set?)")
    require(
        "model.weights",
        weights is None or not weights.startswith("hf:") or bool(re.fullmatch(HUB_NAME, weights)),
        "hf:OWNER/NAME or hf:OWNER/NAME@REVISION, where it begins with hf:",
    )
    require(
        "model.weights_sha256",
        sha256 is None or is_sha256(sha256),
        "null or 64 digits from 0 to f",
    )
    require(
        "model.weights_sha256",
        weights is not None or sha256 is None,
        "null where model.weights is null",
    )
