"""Check what the values of the data's keys may be, each by itself and together; see `rules`."""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import pairwise
from math import inf
from typing import Any, get_args

from trainer.config import augmentations
from trainer.config.augmentations import TRANSFORMS, transforms_of
from trainer.config.data_keys import DataConfig
from trainer.config.data_names import DataName

Require = Callable[[str, bool, str], None]
"""called with a key, whether its value is right, and what would be"""

WITH_SEVERAL_LABELS = ("folder", "table", "npy", "chestmnist")
"""sets, besides your own, whose images may have several labels"""

LARGEST_SIDE = 4096
"""of an image in pixels; what a file claims is not to fill the memory"""
LARGEST_PICTURE_SIDE = 1024
"""that pictures are resized to; a slip of the finger is not to fill the disk"""
MOST_CHANNELS = 1024
LARGEST_QUALITY = 95
"""of a JPEG: beyond, Pillow's documentation says, it only grows"""
MOST_PREFETCHED = 100
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


def _is_size_schedule(schedule: list[list[int]]) -> bool:
    epochs = [entry[0] for entry in schedule if len(entry) in (2, 3)]
    return (
        len(epochs) == len(schedule) > 0
        and epochs[0] == 1
        and all(before < after for before, after in pairwise(epochs))
        and all(1 <= side <= LARGEST_PICTURE_SIDE for entry in schedule for side in entry[1:])
    )


def _is_without_repetition(names: list[str]) -> bool:
    return len(set(names)) == len(names)


def _are_columns(names: list[str]) -> bool:
    return len(names) >= 2 and all(names) and _is_without_repetition(names)


# Rules for a value by itself: the keys, what is right, and that in words.
RULES: tuple[tuple[str, Callable[[Any], bool], str], ...] = (
    ("data.memory_limit_mb", lambda value: value is None or value >= 0, "null, 0 or more"),
    ("data.prefetch", lambda value: 0 <= value <= MOST_PREFETCHED, f"from 0 to {MOST_PREFETCHED}"),
    (
        "data.device_memory_gb",
        lambda value: value is None or 0 <= value < inf,
        "null, or 0 or more",
    ),
    ("data.cache_limit_gb", lambda value: 0 <= value < inf, "0 or more"),
    (
        "data.slice_columns",
        lambda value: len(set(value)) == len(value) and all(value),
        "a list of columns, each once, such as [camera, brightness]",
    ),
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
    (
        "data.label_column",
        lambda value: isinstance(value, str) or _are_columns(value),
        "the name of a column, or a list of at least 2 different ones",
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
        "data.crop_share",
        lambda value: value is None or 0.1 <= value <= 1,
        "null or from 0.1 to 1",
    ),
    (
        "data.mean",
        lambda value: value is None or (value and all(abs(number) <= 1e3 for number in value)),
        "null or a number of each channel, of pixels from 0 to 1, such as [0.485, 0.456, 0.406]",
    ),
    (
        "data.deviation",
        lambda value: value is None or (value and all(1e-6 <= number <= 1e6 for number in value)),
        "null or a positive number of each channel, of pixels from 0 to 1, such as "
        "[0.229, 0.224, 0.225]",
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
)


def check(data: DataConfig, require: Require) -> None:
    """Check the values that belong together.

    Raises:
        UserError: by `require`.
    """
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
    count = None if data.mean is None else len(data.mean)
    require(
        "data.mean",
        data.mean is None or data.scaling == "pretrained",
        "null unless data.scaling is pretrained",
    )
    require(
        "data.deviation",
        count == (None if data.deviation is None else len(data.deviation)),
        "null where data.mean is null" if count is None else f"{count} numbers, as data.mean has",
    )
    require(
        "data.crop_share",
        data.crop_share in (None, 1) or data.resize == "crop",
        "null or 1 unless data.resize is crop",
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
    _check_labels(data, require)
    require(
        "data.image_size_schedule",
        data.image_size_schedule is None or data.scaling != "per_pixel",
        "null where data.scaling is per_pixel, which belongs to one size",
    )
    require(
        "data.sampling",
        data.sampling != "weights" or data.has_pictures,
        "uniform or balanced unless data.name is table",
    )
    for key in (
        "image_size",
        "channels",
        "grey_range",
        "image_size_schedule",
        "store_size",
    ):
        is_right = data.has_pictures or getattr(data, key) is None
        require(
            f"data.{key}",
            is_right,
            "null unless data.name is folder, table or a set of photographs",
        )


def _check_labels(data: DataConfig, require: Require) -> None:
    """Check what says how many labels an image may have."""
    require(
        "data.multi_label",
        not data.multi_label
        or data.name in WITH_SEVERAL_LABELS
        or data.name not in get_args(DataName),
        f"false where data.name is {data.name}, whose images have one label each; several have "
        f"those of {', '.join(WITH_SEVERAL_LABELS)} and of your own functions",
    )
    require(
        "data.multi_label",
        data.multi_label or data.name != "chestmnist",
        "true where data.name is chestmnist, whose images have several labels",
    )
    is_list = isinstance(data.label_column, list)
    require(
        "data.label_column",
        not is_list or data.multi_label,
        "one column unless data.multi_label is true",
    )
