"""Check what the configuration says of the loss, and of classes of unequal size."""

from __future__ import annotations

from difflib import get_close_matches
from math import inf

from trainer.base.errors import UserError
from trainer.config.data_rules import Require
from trainer.config.schema import RunConfig, TrainConfig

_ARGUMENTS: dict[str, dict[str, float]] = {
    "cross_entropy": {},
    "focal": {"gamma": 100.0},
    "bce": {},
    "asymmetric": {"gamma_positive": 100.0, "gamma_negative": 100.0, "margin": 0.5},
}
"""what `train.loss_args` may have, by Lockstep's own losses, and the most that each may be"""


def check(config: RunConfig, require: Require) -> None:
    """Check the keys, by `require` of `rules`.

    Raises:
        UserError: names the first key that is wrong, its value and what it may be.
    """
    train, sampling = config.train, config.data.sampling
    _check_arguments(train)
    if config.data.multi_label:
        _check_several_labels(config, require)
    adjustment, weights = train.logit_adjustment, train.class_weights
    require("train.logit_adjustment", 0 <= adjustment < inf, "0 or more, such as 1")
    require(
        "train.logit_adjustment",
        not adjustment or train.loss not in ("bce", "asymmetric"),
        f"0 where train.loss is {train.loss}, whose classes share no probability of 1",
    )
    require(
        "train.logit_adjustment",
        not adjustment or sampling != "balanced",
        "0 where data.sampling is balanced: all classes are equally frequent already",
    )
    if isinstance(weights, list):
        require(
            "train.class_weights",
            all(0 <= weight < inf for weight in weights) and any(weights),
            "numbers of 0 or more, some of them above, such as [1, 4.5]",
        )
    require(
        "train.class_weights",
        weights != "auto" or sampling != "balanced",
        "null or a list where data.sampling is balanced: all classes are equally frequent already",
    )


def _check_several_labels(config: RunConfig, require: Require) -> None:
    """Refuse what asks which one class an image has, where it may have several labels."""
    train, where = config.train, "where data.multi_label is true"
    require(
        "train.loss",
        train.loss not in ("cross_entropy", "focal"),
        f"bce, asymmetric or one of your own {where}: {train.loss} takes one class of each image",
    )
    is_own = train.loss not in _ARGUMENTS
    require(
        "train.class_weights",
        train.class_weights is None or not is_own,
        f"null {where} and train.loss is your own",
    )
    refused = {
        "train.logit_adjustment": (not train.logit_adjustment, "0"),
        "train.teacher": (train.teacher is None, "null"),
        "train.calibrate": (not train.calibrate, "false"),
        "data.sampling": (config.data.sampling != "balanced", "uniform or weights"),
    }
    for key, (is_right, right) in refused.items():
        require(key, is_right, f"{right} {where}: it is about images of one class each")


def _check_arguments(train: TrainConfig) -> None:
    known = _ARGUMENTS.get(train.loss)
    if known is None:
        return
    for name, value in train.loss_args.items():
        if name not in known:
            close = get_close_matches(str(name), known)
            nearest = f"; did you mean {close[0]}?" if close else ""
            listing = f"it takes {', '.join(known)}" if known else "it takes none"
            raise UserError(
                f"train.loss_args: {train.loss} takes no {name!r}{nearest or ';'} {listing}"
            )
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not is_number or not 0 <= value <= known[name]:
            raise UserError(
                f"train.loss_args: {name}: must be a number from 0 to {known[name]:g}, found "
                f"{value!r}"
            )
