"""Check what the values of a configuration may be, each by itself and together.

A key that is null or empty by default asks for something: it is refused where there is no such
thing, as milestones of a schedule that has none. One with a value by default, such as
schedule.factor, says in `schema` what it belongs to and does nothing otherwise, so that a recipe's
optimiser or schedule may be exchanged without other keys.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import pairwise
from math import inf
from typing import Any

from trainer.base.errors import UserError
from trainer.config import augmentations, plugins
from trainer.config.augmentations import TRANSFORMS, transforms_of
from trainer.config.schema import DataConfig, RunConfig, ScheduleConfig, averaged_epochs, flatten

_Require = Callable[[str, bool, str], None]
"""called with a key, whether its value is right, and what would be"""

LARGEST_SIDE = 4096
"""of an image in pixels; what a file claims is not to fill the memory"""
LARGEST_PICTURE_SIDE = 1024
MOST_CHANNELS = 1024
"""that pictures are resized to; a slip of the finger is not to fill the disk"""
LARGEST_QUALITY = 95
"""of a JPEG: beyond, Pillow's documentation says, it only grows"""
MOST_PREFETCHED = 100
LARGEST_EVALUATION_BATCH = 100_000
AUGMENT_RULE = (
    f"none, or some of {', '.join(TRANSFORMS)} joined by _, each at most once; functions of your "
    f"own, path/to/file.py:name, each after a +; or a list such as "
    "[flip, {rotate: {degrees: 10}}]"
)


def _is_grouping(groups: int | str | None) -> bool:
    if not isinstance(groups, str):
        return groups is None or groups >= 1
    try:
        return groups != "" and re.compile(groups).groups <= 1
    except re.error:
        return False


# Rules for a value by itself: the keys, what is right, and that in words.
_RULES: tuple[tuple[str, Callable[[Any], bool], str], ...] = (
    (
        "data.root data.file_column data.label_column data.part_column data.group_column "
        "data.weight_column resume model.weights",
        lambda value: value != "",
        "a name (is a variable of the shell not set?)",
    ),
    (
        "processes threads data.train_size data.test_size train.microbatches train.patience "
        "checkpoint.every_epochs checkpoint.every_steps",
        lambda value: value is None or value >= 1,
        "null or at least 1",
    ),
    (
        "train.epochs train.batch_size train.accumulation checkpoint.keep data.max_megapixels",
        lambda value: value >= 1,
        "at least 1",
    ),
    ("threads", lambda value: value is None or value <= 1024, "at most 1,024"),
    ("output_dir", lambda value: value != "", "null or the name of a folder"),
    ("seed", lambda value: 0 <= value < 2**63, "between 0 and 2^63 - 1"),
    ("timeout_seconds", lambda value: 1 <= value <= 1e6, "between 1 and 1,000,000"),
    ("data.memory_limit_mb", lambda value: value is None or value >= 0, "null, 0 or more"),
    ("data.prefetch", lambda value: 0 <= value <= MOST_PREFETCHED, f"from 0 to {MOST_PREFETCHED}"),
    ("data.cache_limit_gb", lambda value: 0 <= value < inf, "0 or more"),
    ("data.cache_dir", lambda value: value != "", "null or the name of a folder"),
    (
        "data.store_size",
        lambda value: value is None or 1 <= value <= LARGEST_SIDE,
        f"null or from 1 to {LARGEST_SIDE:,}",
    ),
    (
        "data.store_quality",
        lambda value: 1 <= value <= LARGEST_QUALITY,
        f"from 1 to {LARGEST_QUALITY}",
    ),
    (
        "data.image_size_schedule",
        lambda value: value is None or _is_size_schedule(value),
        f"null, or a list of [first_epoch, size] or [first_epoch, height, width] with rising "
        f"epochs, the first of them 1, and sizes from 1 to {LARGEST_PICTURE_SIDE:,}, such as "
        f"[[1, 96], [30, 128]]",
    ),
    ("data.validation_size", lambda value: value is None or value >= 0, "null, 0 or more"),
    ("data.folds", lambda value: value is None or value >= 2, "null or at least 2"),
    (
        "data.augment",
        lambda value: isinstance(value, list) or _is_without_repetition(transforms_of(value)),
        AUGMENT_RULE,
    ),
    (
        "data.groups",
        _is_grouping,
        "null, a folder level such as 1, a pattern with one pair of brackets such as ^(s[0-9]+)_, "
        "or a table's column",
    ),
    ("data.mixup data.cutmix", lambda value: 0 <= value < inf, "0 or positive and finite"),
    (
        "data.image_size",
        lambda value: (
            value is None
            or (len(value) == 2 and all(1 <= side <= LARGEST_PICTURE_SIDE for side in value))
        ),
        f"null, one number for a square, or height and width such as [64, 64], each from 1 to "
        f"{LARGEST_PICTURE_SIDE:,}",
    ),
    (
        "data.channels",
        lambda value: value is None or 1 <= value <= MOST_CHANNELS,
        f"null, or from 1 to {MOST_CHANNELS:,}",
    ),
    (
        "data.grey_range",
        lambda value: value is None or (len(value) == 2 and -1e30 <= value[0] < value[1] <= 1e30),
        "null, or the values of black and of white such as [0, 4095]",
    ),
    (
        "train.average_epochs",
        lambda value: value is None or 0 < value < 1 or (value >= 1 and value % 1 == 0),
        "null or at least 1, a whole number of epochs, or between 0 and 1, a share of train.epochs",
    ),
    (
        "train.evaluation_batch_size",
        lambda value: value is None or 1 <= value <= LARGEST_EVALUATION_BATCH,
        f"null, or from 1 to {LARGEST_EVALUATION_BATCH:,}",
    ),
    ("train.label_smoothing optimizer.momentum", lambda value: 0 <= value < 1, "in [0, 1)"),
    (
        "train.clip_norm train.max_seconds",
        lambda value: value is None or 0 < value < inf,
        "null or positive",
    ),
    ("train.ema_decay", lambda value: value is None or 0 < value < 1, "null or between 0 and 1"),
    ("optimizer.lr", lambda value: 0 < value < inf, "positive and finite"),
    ("optimizer.weight_decay", lambda value: 0 <= value < 1e6, "0 or more"),
    ("schedule.final_fraction", lambda value: 0 <= value <= 1, "in [0, 1]"),
    ("schedule.factor", lambda value: 0 < value < 1, "between 0 and 1"),
)


def _is_size_schedule(schedule: list[list[int]]) -> bool:
    epochs = [entry[0] for entry in schedule if len(entry) in (2, 3)]
    return (
        len(epochs) == len(schedule) > 0
        and epochs[0] == 1
        and all(before < after for before, after in pairwise(epochs))
        and all(1 <= side <= LARGEST_PICTURE_SIDE for entry in schedule for side in entry[1:])
    )


def check_average(config: RunConfig) -> None:
    """Make sure that the mean of the last epochs leaves out the first; older runs may have it.

    Raises:
        UserError: the mean was meant for a run of more epochs.
    """
    if _averaged_share(config) >= 1:
        count, epochs = averaged_epochs(config.train), config.train.epochs
        raise UserError(
            f"train.average_epochs: {count} of {epochs} epochs are all, the first ones too, whose "
            f"weights are far from the last; it must be less than train.epochs, or a share of "
            f"them, such as 0.33, which stays right when train.epochs changes"
        )


def find_warnings(config: RunConfig) -> list[str]:
    """Return warnings about numbers of epochs that were probably meant for another train.epochs."""
    epochs, found = config.train.epochs, []
    if _averaged_share(config) > 0.5:
        found.append(
            f"train.average_epochs: the mean takes in {averaged_epochs(config.train)} of {epochs} "
            f"epochs, the early ones too; a share of them, such as 0.33, stays right when "
            f"train.epochs changes"
        )
    if (warmup := config.schedule.warmup_epochs) > epochs / 2:
        found.append(
            f"schedule.warmup_epochs: the learning rate rises for {warmup:g} of {epochs} epochs, "
            f"and has little time at its top"
        )
    return found


def _averaged_share(config: RunConfig) -> float:
    """Return the share of the epochs that are averaged; 0 if there is only one epoch."""
    count, epochs = averaged_epochs(config.train), config.train.epochs
    return 0.0 if count is None or epochs == 1 else count / epochs


def validate(config: RunConfig) -> None:
    """Check every value's range.

    Raises:
        UserError: names the first key that is out of range, its value and what it may be.
    """
    values = flatten(config)

    def require(key: str, is_right: bool, rule: str) -> None:
        if not is_right:
            raise UserError(f"{key}: must be {rule}, found {values[key]!r}")

    for key, value in values.items():
        if isinstance(value, str) and not is_unicode(value):
            raise UserError(
                f"{key}: {value!a} is not in UTF-8, and could not be written into the files of a "
                "run; rename it, or make a link to it under another name and give that"
            )
    for keys, is_right, rule in _RULES:
        for key in keys.split():
            require(key, is_right(values[key]), rule)
    _check_data(config.data, require)
    _check_train(config, require)
    _check_schedule(config.schedule, config.train.epochs, require)


def is_unicode(text: str) -> bool:
    """Return whether a text is Unicode; names of files in other encodings are not."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _is_without_repetition(names: list[str]) -> bool:
    return len(set(names)) == len(names)


def _check_data(data: DataConfig, require: _Require) -> None:
    if isinstance(data.augment, list):
        augmentations.check_list(data.augment)
    folds, fold = data.folds, data.fold
    require(
        "data.fold",
        fold is None if folds is None else fold is not None and 1 <= fold <= folds,
        "null where data.folds is null" if folds is None else f"1 to {folds}, as data.folds says",
    )
    require(
        "data.root",
        data.name not in ("folder", "idx", "npy", "table") or bool(data.root),
        f"{'the table' if data.name == 'table' else 'the folder of the files'} where data.name is "
        f"{data.name}",
    )
    require(
        "data.scaling",
        data.scaling != "imagenet" or data.channels in (None, 3),
        f"another than imagenet where data.channels is {data.channels}",
    )
    is_table = data.name == "table"
    require(
        "data.groups",
        data.groups is None or data.name == "folder" or is_table,
        "null unless data.name is folder or table",
    )
    require(
        "data.groups",
        is_table or not isinstance(data.groups, str) or re.compile(data.groups).groups == 1,
        "a pattern with one pair of brackets, such as ^(s[0-9]+)_, or a folder level such as 1",
    )
    require(
        "data.image_size_schedule",
        data.image_size_schedule is None or data.scaling != "per_pixel",
        "null where data.scaling is per_pixel, which belongs to one size",
    )
    require(
        "data.sampling",
        data.sampling == "uniform" or data.has_pictures,
        "uniform unless data.name is table",
    )
    for key in ("image_size", "channels", "grey_range", "image_size_schedule", "store_size"):
        is_right = data.has_pictures or getattr(data, key) is None
        require(
            f"data.{key}",
            is_right,
            "null unless data.name is folder, table or a set of photographs",
        )


def _check_train(config: RunConfig, require: _Require) -> None:
    train, name = config.train, config.optimizer.name
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
        "train.patience",
        train.patience is None or config.data.validation_size != 0,
        "null where data.validation_size is 0, as there is nothing to judge by",
    )
    require(
        "optimizer.args",
        not config.optimizer.args or not plugins.is_built_in("optimizer", name),
        f"empty where optimizer.name is Lockstep's {name}",
    )


def _check_schedule(schedule: ScheduleConfig, epochs: int, require: _Require) -> None:
    warmup_epochs, milestones = schedule.warmup_epochs, schedule.milestones
    require(
        "schedule.warmup_epochs",
        0 <= warmup_epochs < epochs,
        f"0 or more and less than train.epochs, which is {epochs}",
    )
    # Where the usual 30 % were meant, no warm-up at all would be found out by a bad result.
    require(
        "schedule.warmup_epochs",
        schedule.name != "one_cycle" or warmup_epochs > 0,
        "positive where schedule.name is one_cycle: 0.3 x train.epochs is usual",
    )
    if schedule.name == "piecewise":
        bounds = [warmup_epochs, *(milestones or []), epochs]
        require(
            "schedule.milestones",
            bool(milestones) and all(before < after for before, after in pairwise(bounds)),
            f"a list of rising epochs such as [10, 15.5], above schedule.warmup_epochs, which is "
            f"{warmup_epochs}, and below train.epochs, which is {epochs}",
        )
    else:
        require("schedule.milestones", milestones is None, "null unless schedule.name is piecewise")
