"""Check what the keys of training, optimiser and schedule may be together."""

from __future__ import annotations

from collections.abc import Collection
from difflib import get_close_matches
from itertools import pairwise

from trainer.base.errors import UserError
from trainer.config.data_rules import Require
from trainer.config.schema import OptimizerConfig, RunConfig, ScheduleConfig

_OF_ADAM = ("betas", "eps", "amsgrad")
ARGUMENTS = {
    "sgd": ("momentum", "nesterov", "dampening"),
    "adam": _OF_ADAM,
    "adamw": _OF_ADAM,
    "rmsprop": ("momentum", "alpha", "eps", "centered"),
    "muon": ("momentum", "nesterov", "betas", "eps"),
}
"""what `optimizer.args` may have, by Lockstep's own optimisers"""
_ONLY_OF = {
    "piecewise": "milestones",
    "restarts": "cycle_epochs",
    "plateau": "plateau_epochs",
}
"""the key that a schedule needs and no other has"""
_GROUP_KEYS = ("lr_factor", "weight_decay")


_NOT_PORTABLE = ("rmsprop",)
"""optimisers with operations that processors round differently: docs/lockstep.md"""


def check(config: RunConfig, require: Require) -> None:
    """Check the keys of the sections train, optimizer and schedule together.

    Raises:
        UserError: names the first key that is wrong, its value and what it may be.
    """
    _check_train(config, require)
    if config.train.kernels == "portable":
        _check_portable(config, require)
    _check_optimizer(config.optimizer)
    _check_schedule(config, require)


def _check_train(config: RunConfig, require: Require) -> None:
    train = config.train
    require(
        "train.microbatches",
        train.microbatches is None or train.microbatches <= train.batch_size,
        f"at most train.batch_size, which is {train.batch_size}",
    )
    require(
        "train.average_epochs",
        train.average_epochs is None or train.ema_decay is None,
        "null where train.ema_decay is given: there is one average",
    )
    require(
        "train.choose_by",
        train.choose_by is None or config.data.validation_size != 0,
        "null where data.validation_size is 0, as there is nothing to judge by",
    )
    require(
        "train.choose_by",
        train.choose_by in (None, "accuracy", "first_accuracy", "loss")
        or not config.data.multi_label,
        "accuracy, which is the mean average precision there, or loss where data.multi_label is "
        "true",
    )
    require(
        "train.patience",
        train.patience is None or config.data.validation_size != 0,
        "null where data.validation_size is 0, as there is nothing to judge by",
    )
    require(
        "train.calibrate",
        not train.calibrate or config.data.validation_size != 0,
        "false where data.validation_size is 0, as there is nothing to fit a temperature to",
    )
    require(
        "train.clip_mode",
        train.clip_mode == "norm" or train.clip_norm is not None,
        "norm where train.clip_norm is null, as there is no limit",
    )
    require(
        "train.compile",
        train.compile != "max-autotune" or train.reduction == "fast",
        "none or default where train.reduction is exact: what is chosen by timing differs from "
        "start to start, and so would the bits",
    )
    require(
        "train.activation_checkpointing",
        train.compile == "none" or not train.activation_checkpointing,
        "false where train.compile is not none: compiled blocks that are computed again round "
        "differently, and the gradient of a maximum is then not a number",
    )
    require("train.freeze", train.freeze != [], "null, backbone or a list with a pattern in it")
    unfreeze_epoch = train.unfreeze_epoch
    require(
        "train.unfreeze_epoch",
        unfreeze_epoch is None or train.freeze is not None,
        "null where train.freeze is null: nothing is frozen",
    )
    require(
        "train.unfreeze_epoch",
        unfreeze_epoch is None or unfreeze_epoch >= 2,
        "null or at least 2",
    )
    require(
        "train.freeze_statistics",
        not train.freeze_statistics or config.model.weights is not None,
        "false where model.weights is null: there are no statistics to keep",
    )
    if train.cache_features:
        _check_cached_features(config, require)


def _check_portable(config: RunConfig, require: Require) -> None:
    """Refuse what has other bits on another processor even with portable kernels."""
    where = "where train.kernels is portable"
    require("threads", config.threads in (None, 1), f"null or 1 {where}")
    require("train.precision", config.train.precision == "fp32", f"fp32 {where}")
    require("train.reduction", config.train.reduction == "exact", f"exact {where}")
    require(
        "train.compile",
        config.train.compile == "none",
        f"none {where}: its kernels are made for this processor by this machine's compiler",
    )
    name = config.optimizer.name
    require(
        "optimizer.name",
        name not in _NOT_PORTABLE,
        f"another than {name} {where}: processors round its square roots differently",
    )


def _check_cached_features(config: RunConfig, require: Require) -> None:
    """Make sure that the backbone gets the same images in each epoch in which it is frozen."""
    train, data = config.train, config.data
    needed = {
        "train.freeze is backbone": train.freeze == "backbone",
        "data.augment is none": data.augment in ("none", []),
        "data.mixup is 0": not data.mixup,
        "data.cutmix is 0": not data.cutmix,
        "train.teacher is null, as it answers for images": train.teacher is None,
        "data.image_size_schedule has data.image_size before train.unfreeze_epoch": all(
            data.height_and_width == [size[0], size[-1]]
            for first_epoch, *size in data.image_size_schedule or ()
            if train.unfreeze_epoch is None or first_epoch < train.unfreeze_epoch
        ),
    }
    for condition, is_met in needed.items():
        require("train.cache_features", is_met, f"false unless {condition}")


def _check_optimizer(optimizer: OptimizerConfig) -> None:
    known = ARGUMENTS.get(optimizer.name, ())
    for name in optimizer.args:
        if known and name not in known:
            raise UserError(
                f"optimizer.args: {optimizer.name} takes no {name!r}{_nearest(name, known)}; it "
                f"takes {', '.join(known)}"
            )
    for pattern, settings in optimizer.groups.items():
        if not isinstance(settings, dict) or not settings:
            raise UserError(
                f"optimizer.groups: {pattern}: must be lr_factor, weight_decay or both, such as "
                f"{{{pattern}: {{lr_factor: 0.2}}}}, found {settings!r}"
            )
        for name, value in settings.items():
            where = f"optimizer.groups: {pattern}: {name}"
            if name not in _GROUP_KEYS:
                raise UserError(
                    f"{where}: is none of {', '.join(_GROUP_KEYS)}{_nearest(name, _GROUP_KEYS)}"
                )
            is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
            if not is_number or not 0 <= value < 1e6 or (name == "lr_factor" and value == 0):
                rule = "0 or more"
                if name == "lr_factor":
                    rule = "a positive number (train.freeze keeps parameters as they are)"
                raise UserError(f"{where}: must be {rule}, found {value!r}")


def _nearest(name: str, known: Collection[str]) -> str:
    close = get_close_matches(str(name), known)
    return f"; did you mean {close[0]}?" if close else ""


def _check_schedule(config: RunConfig, require: Require) -> None:
    schedule, epochs = config.schedule, config.train.epochs
    _check_warmup(schedule, epochs, require)
    if schedule.name == "piecewise":
        milestones = schedule.milestones
        bounds = [schedule.warmup_epochs, *(milestones or []), epochs]
        require(
            "schedule.milestones",
            bool(milestones) and all(before < after for before, after in pairwise(bounds)),
            f"a list of rising epochs such as [10, 15.5], above schedule.warmup_epochs, which is "
            f"{schedule.warmup_epochs}, and below train.epochs, which is {epochs}",
        )
    for name, key in _ONLY_OF.items():
        is_null = getattr(schedule, key) is None
        if schedule.name != name:
            require(f"schedule.{key}", is_null, f"null unless schedule.name is {name}")
        else:
            require(f"schedule.{key}", not is_null, f"given where schedule.name is {name}")
    require(
        "schedule.name",
        schedule.name != "plateau" or config.data.validation_size != 0,
        "another than plateau where data.validation_size is 0, as there is nothing to judge by",
    )


def _check_warmup(schedule: ScheduleConfig, epochs: int, require: Require) -> None:
    require(
        "schedule.warmup_epochs",
        0 <= schedule.warmup_epochs < epochs,
        f"0 or more and less than train.epochs, which is {epochs}",
    )
    require(
        "schedule.warmup_steps",
        schedule.warmup_steps is None or schedule.warmup_epochs == 0,
        "null where schedule.warmup_epochs is given: there is one warm-up",
    )
    # Where the usual 30 % were meant, no warm-up at all would be found out by a bad result.
    require(
        "schedule.warmup_epochs",
        schedule.name != "one_cycle" or schedule.warmup_epochs > 0 or bool(schedule.warmup_steps),
        "positive where schedule.name is one_cycle: 0.3 x train.epochs is usual",
    )
