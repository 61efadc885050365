"""Tell whether two configurations are of the same run, so that one may go on with the other's."""

from __future__ import annotations

import dataclasses
from typing import Any

from trainer.config.schema import CheckpointConfig, RunConfig, TrackingConfig, flatten

FREE_KEYS = frozenset(
    {"output_dir", "resume", "processes", "timeout_seconds", "data.root"}
    | {"data.memory_limit_mb", "data.cache", "data.cache_dir", "data.cache_limit_gb"}
    | {"data.max_megapixels", "data.prefetch", "data.slice_columns"}
    | {"data.device_memory_gb"}
    | {"train.accumulation", "train.max_seconds", "train.on_nonfinite"}
    | {"train.activation_checkpointing"}
    | {f"checkpoint.{key.name}" for key in dataclasses.fields(CheckpointConfig)}
    | {f"tracking.{key.name}" for key in dataclasses.fields(TrackingConfig)}
)
"""keys that cannot change the weights: a run may be resumed with other values of them"""

PINNED_KEYS = (
    "threads",
    "train.microbatches",
    "train.choose_by",
    "data.image_size",
    "data.channels",
    "data.crop_share",
    "data.interpolation",
    "data.scaling",
    "data.mean",
    "data.deviation",
    "model.weights_sha256",
    "train.teacher_sha256",
)
"""keys whose null is filled in at the first start and then belongs to the run"""


EPOCH_BY_EPOCH = ("constant", "restarts", "piecewise", "plateau")
"""schedules whose rates do not depend on the number of epochs"""


def keys_of_run(config: RunConfig) -> dict[str, Any]:
    """Return the dotted keys that can change the weights of this run, with their values."""
    return {key: value for key, value in flatten(config).items() if key not in FREE_KEYS}


def extends(ours: RunConfig, theirs: RunConfig) -> bool:
    """Return whether `ours` has more epochs than `theirs`, and the common ones are the same run.

    They are where neither the learning rate nor an average depends on the number of epochs.
    """
    free = ours.schedule.name in EPOCH_BY_EPOCH and ours.train.average_epochs is None
    return free and ours.train.epochs > theirs.train.epochs


def differences(ours: RunConfig, theirs: RunConfig) -> list[str]:
    """Return a line for each key that changes the run: `key: ours against theirs`.

    Weights and a teacher of one digest may come from two places.
    """
    mine, other = flatten(ours), flatten(theirs)
    moved = {
        key
        for key in ("model.weights", "train.teacher")
        if mine[key] and other[key] and mine[f"{key}_sha256"] == other[f"{key}_sha256"] is not None
    }
    return [
        f"{key}: {mine[key]!r} against {other[key]!r}"
        for key in mine
        if key not in FREE_KEYS | moved and mine[key] != other[key]
    ]
