"""Check what the values of a configuration may be, each by itself and together.

A key that is null or empty by default asks for something: it is refused where there is no such
thing, as milestones of a schedule that has none. One with a value by default, such as
schedule.factor, says in `schema` what it belongs to and does nothing otherwise, so that a recipe's
optimiser or schedule may be exchanged without other keys.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from trainer.base.errors import UserError
from trainer.config import plugins
from trainer.config.schema import (
    TRANSFORMS,
    RunConfig,
    averaged_epochs,
    flatten,
    transforms_of,
)

LARGEST_SIDE = 4096
"""in pixels; a slip of the finger is not to fill the disk"""
LARGEST_EVALUATION_BATCH = 100_000
AUGMENT_RULE = (
    f"none, or some of {', '.join(TRANSFORMS)} joined by _, each at most once; functions of your "
    f"own, path/to/file.py:name, each after a +"
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


def doubts(config: RunConfig) -> list[str]:
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
    """Return the share of the epochs that are averaged; 0 where there is only one epoch."""
    count, epochs = averaged_epochs(config.train), config.train.epochs
    return 0.0 if count is None or epochs == 1 else count / epochs


def validate(config: RunConfig) -> None:
    """Check every value's range.

    Raises:
        UserError: names the first key that is out of range, its value and what it may be.
    """
    values = _Values(flatten(config))
    _check_texts(values)
    _check_run(values)
    _check_data(values)
    _check_own_files(values)
    _check_train(values)
    _check_optimizer(values)
    _check_schedule(values)
    _check_checkpoint(values)


class _Values(dict[str, Any]):
    """Maps dotted keys to the values of a configuration."""

    def require(self, key: str, is_right: bool, rule: str) -> None:
        if not is_right:
            raise UserError(f"{key}: must be {rule}, found {self[key]!r}")

    def require_count(self, key: str) -> None:
        self.require(key, self[key] >= 1, "at least 1")

    def require_null_or_count(self, key: str) -> None:
        self.require(key, self[key] is None or self[key] >= 1, "null or at least 1")


def _check_texts(values: _Values) -> None:
    for key, value in values.items():
        if isinstance(value, str) and not is_unicode(value):
            raise UserError(
                f"{key}: {value!a} is not in UTF-8, and could not be written into the files of a "
                "run; rename it, or make a link to it under another name and give that"
            )
    for key in ("data.root", "resume", "model.weights"):
        values.require(key, values[key] != "", "a name (is a variable of the shell not set?)")


def is_unicode(text: str) -> bool:
    """Return whether a text is Unicode; names of files in other encodings are not."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _check_run(values: _Values) -> None:
    for key in ("processes", "threads"):
        values.require_null_or_count(key)
    threads = values["threads"]
    values.require("threads", threads is None or threads <= 1024, "at most 1,024")
    values.require("output_dir", values["output_dir"] != "", "null or the name of a folder")
    values.require("seed", 0 <= values["seed"] < 2**63, "between 0 and 2^63 - 1")
    timeout_s = values["timeout_seconds"]
    values.require("timeout_seconds", 1 <= timeout_s <= 1e6, "between 1 and 1,000,000")


def _check_data(values: _Values) -> None:
    for key in ("data.train_size", "data.test_size"):
        values.require_null_or_count(key)
    values.require("data.memory_limit_mb", values["data.memory_limit_mb"] >= 0, "0 or more")
    size = values["data.validation_size"]
    values.require("data.validation_size", size is None or size >= 0, "null, 0 or more")
    folds, fold = values["data.folds"], values["data.fold"]
    values.require("data.folds", folds is None or folds >= 2, "null or at least 2")
    values.require(
        "data.fold",
        fold is None if folds is None else fold is not None and 1 <= fold <= folds,
        "null where data.folds is null" if folds is None else f"1 to {folds}, as data.folds says",
    )
    names = transforms_of(values["data.augment"])
    values.require("data.augment", len(set(names)) == len(names), AUGMENT_RULE)
    for key in ("data.mixup", "data.cutmix"):
        values.require(key, 0 <= values[key] < float("inf"), "0 or positive and finite")


def _check_own_files(values: _Values) -> None:
    is_folder = values["data.name"] == "folder"
    own_files = is_folder or values["data.name"] in ("idx", "npy")
    values.require(
        "data.root",
        not own_files or bool(values["data.root"]),
        f"the folder of the files where data.name is {values['data.name']}",
    )
    for key in ("data.image_size", "data.channels", "data.grey_range"):
        values.require(key, is_folder or values[key] is None, "null unless data.name is folder")
    image_size = values["data.image_size"]
    values.require(
        "data.image_size",
        image_size is None
        or (len(image_size) == 2 and all(1 <= side <= LARGEST_SIDE for side in image_size)),
        f"null, one number for a square, or height and width such as [64, 64], each from 1 to "
        f"{LARGEST_SIDE:,}",
    )
    values.require("data.channels", values["data.channels"] in (None, 1, 3), "null, 1 or 3")
    seen = values["data.grey_range"]
    values.require(
        "data.grey_range",
        seen is None or (len(seen) == 2 and -1e30 <= seen[0] < seen[1] <= 1e30),
        "null, or the values of black and of white such as [0, 4095]",
    )


def _check_train(values: _Values) -> None:
    for key in ("train.epochs", "train.batch_size", "train.accumulation"):
        values.require_count(key)
    for key in ("train.microbatches", "train.patience"):
        values.require_null_or_count(key)
    mean = values["train.average_epochs"]
    values.require(
        "train.average_epochs",
        mean is None or 0 < mean < 1 or (mean >= 1 and mean == int(mean)),
        "null or at least 1, a whole number of epochs, or between 0 and 1, a share of train.epochs",
    )
    microbatches = values["train.microbatches"]
    values.require(
        "train.microbatches",
        microbatches is None or microbatches <= values["train.batch_size"],
        f"at most train.batch_size, which is {values['train.batch_size']}",
    )
    at_once = values["train.evaluation_batch_size"]
    values.require(
        "train.evaluation_batch_size",
        at_once is None or 1 <= at_once <= LARGEST_EVALUATION_BATCH,
        f"null, or from 1 to {LARGEST_EVALUATION_BATCH:,}",
    )
    smoothing = values["train.label_smoothing"]
    values.require("train.label_smoothing", 0 <= smoothing < 1, "in [0, 1)")
    for key in ("train.clip_norm", "train.max_seconds"):
        values.require(
            key, values[key] is None or 0 < values[key] < float("inf"), "null or positive"
        )
    decay = values["train.ema_decay"]
    values.require("train.ema_decay", decay is None or 0 < decay < 1, "null or between 0 and 1")
    values.require(
        "train.average_epochs",
        mean is None or decay is None,
        "null where train.ema_decay is given: there is one average",
    )
    values.require(
        "train.patience",
        values["train.patience"] is None or values["data.validation_size"] != 0,
        "null where data.validation_size is 0, as there is nothing to judge by",
    )


def _check_optimizer(values: _Values) -> None:
    name = values["optimizer.name"]
    values.require(
        "optimizer.args",
        not values["optimizer.args"] or not plugins.is_built_in("optimizer", name),
        f"empty where optimizer.name is Lockstep's {name}",
    )
    values.require("optimizer.lr", 0 < values["optimizer.lr"] < float("inf"), "positive and finite")
    decay = values["optimizer.weight_decay"]
    values.require("optimizer.weight_decay", 0 <= decay < 1e6, "0 or more")
    values.require("optimizer.momentum", 0 <= values["optimizer.momentum"] < 1, "in [0, 1)")


def _check_schedule(values: _Values) -> None:
    name, epochs = values["schedule.name"], values["train.epochs"]
    warmup_epochs = values["schedule.warmup_epochs"]
    values.require(
        "schedule.warmup_epochs",
        0 <= warmup_epochs < epochs,
        f"0 or more and less than train.epochs, which is {epochs}",
    )
    # Where the usual 30 % were meant, no warm-up at all would be found out by a bad result.
    values.require(
        "schedule.warmup_epochs",
        name != "one_cycle" or warmup_epochs > 0,
        "positive where schedule.name is one_cycle: 0.3 x train.epochs is usual",
    )
    final = values["schedule.final_fraction"]
    values.require("schedule.final_fraction", 0 <= final <= 1, "in [0, 1]")
    values.require("schedule.factor", 0 < values["schedule.factor"] < 1, "between 0 and 1")
    key, milestones = "schedule.milestones", values["schedule.milestones"]
    if name == "piecewise":
        bounds = [warmup_epochs, *(milestones or []), epochs]
        values.require(
            key,
            bool(milestones) and all(before < after for before, after in pairwise(bounds)),
            f"a list of rising epochs such as [10, 15.5], above schedule.warmup_epochs, which is "
            f"{warmup_epochs}, and below train.epochs, which is {epochs}",
        )
    else:
        values.require(key, milestones is None, "null unless schedule.name is piecewise")


def _check_checkpoint(values: _Values) -> None:
    for key in ("checkpoint.every_epochs", "checkpoint.every_steps"):
        values.require_null_or_count(key)
    values.require_count("checkpoint.keep")
