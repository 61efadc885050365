"""Check what the values of a configuration may be, each by itself and together.

A key that is null or empty by default asks for something: it is refused where there is no such
thing, as milestones of a schedule that has none. One with a value by default, such as
schedule.factor, says in `schema` what it belongs to and does nothing otherwise, so that a recipe's
optimiser or schedule may be exchanged without other keys.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import Any

from trainer.base.errors import UserError
from trainer.config import (
    data_rules,
    distillation_rules,
    loss_rules,
    training_rules,
    weights_rules,
)
from trainer.config.schema import RunConfig, averaged_epochs, flatten

LARGEST_EVALUATION_BATCH = 100_000


# Rules for a value by itself: the keys, what is right, and that in words.
_RULES: tuple[tuple[str, Callable[[Any], bool], str], ...] = (
    (
        "data.root data.file_column data.label_column data.part_column data.group_column "
        "data.weight_column resume",
        lambda value: value != "",
        "a name (is a variable of the shell not set?)",
    ),
    (
        "processes threads data.train_size data.test_size train.microbatches train.patience "
        "checkpoint.every_epochs checkpoint.every_steps schedule.warmup_steps "
        "schedule.plateau_epochs",
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
        "train.clip_norm train.max_seconds train.sam_rho",
        lambda value: value is None or 0 < value < inf,
        "null or positive",
    ),
    ("train.ema_decay", lambda value: value is None or 0 < value < 1, "null or between 0 and 1"),
    ("optimizer.lr", lambda value: 0 < value < inf, "positive and finite"),
    (
        "optimizer.layer_decay",
        lambda value: value is None or 0 < value < 1,
        "null or between 0 and 1, such as 0.75",
    ),
    ("optimizer.weight_decay", lambda value: 0 <= value < 1e6, "0 or more"),
    ("schedule.final_fraction", lambda value: 0 <= value <= 1, "in [0, 1]"),
    ("schedule.power", lambda value: 0 < value < inf, "positive and finite"),
    ("schedule.cycle_epochs", lambda value: value is None or 0 < value < inf, "null or positive"),
    ("schedule.cycle_factor", lambda value: 1 <= value < inf, "at least 1"),
    ("schedule.factor", lambda value: 0 < value < 1, "between 0 and 1"),
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
    for keys, is_right, rule in (*data_rules.RULES, *_RULES):
        for key in keys.split():
            require(key, is_right(values[key]), rule)
    data_rules.check(config.data, require)
    weights_rules.check(config.model, require)
    training_rules.check(config, require)
    distillation_rules.check(config.train, require)
    loss_rules.check(config, require)


def is_unicode(text: str) -> bool:
    """Return whether a text is Unicode; names of files in other encodings are not."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
