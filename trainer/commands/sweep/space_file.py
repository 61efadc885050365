"""Read the file of what a sweep tries: YAML with a list of choices or a range for each key."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

from trainer.base.errors import UserError
from trainer.base.strict_json import check_type, describe_value, read_text
from trainer.commands.sweep.space import Choices, Range, Space
from trainer.config import command_line, strict_yaml
from trainer.config.key_errors import hints_of, unknown_key, wrong_type
from trainer.config.same_run import FREE_KEYS
from trainer.config.schema import RunConfig, flatten

OF_THE_WHOLE_SWEEP = FREE_KEYS | {
    "seed", "threads", "train.kernels", "train.choose_by",
    "data.name", "data.train_size", "data.test_size", "data.test_augment", "data.on_bad",
    "data.validation_size", "data.validation", "data.folds", "data.fold", "data.groups",
    "data.multi_label", "data.file_column", "data.label_column", "data.part_column",
    "data.group_column",
}  # fmt: skip
"""keys that a space cannot have: with other validation images, or judged by another figure, trials
cannot be compared; and what changes no weights cannot be better"""

_SHAPE = "must be a list of choices, such as [0.1, 0.2], or a range, such as {low: 1e-3, high: 0.1}"
_LARGEST = 2**53
"""whole numbers up to it have their own float, as the sampler counts in these"""

SPACES = command_line.RECIPES / "spaces"


def path_of(text: str) -> Path:
    """Return the file that an argument names; a bare name is one of our own, as for --config."""
    own = SPACES / f"{text}.yaml"
    return own if text == own.stem and own.is_file() and not Path(text).is_file() else Path(text)


def read(path: Path) -> Space:
    """Read a space file.

    Raises:
        UserError: names the file and the key that is wrong, and what would be right.
    """
    try:
        found = _parse(read_text(path))
        if not isinstance(found, dict) or not found:
            raise UserError("has no keys; a line is such as `optimizer.lr: [0.01, 0.02]`")
        return {str(key): _read_key(str(key), found[key]) for key in sorted(found, key=str)}
    except UserError as error:
        prefix = f"--space: {path}: "
        raise UserError(prefix + str(error).removeprefix(f"{path}: ")) from error


def _parse(text: str) -> Any:
    import yaml

    try:
        return strict_yaml.load_recipe(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        words = " ".join(str(error).split())[:200]
        raise UserError(f"not YAML ({words})") from error


def _read_key(key: str, found: Any) -> Choices | Range:
    if key not in flatten(RunConfig()):
        raise UserError(unknown_key(key))
    if key in OF_THE_WHOLE_SWEEP:
        raise UserError(
            f"{key}: is the same for all trials, or they could not be compared; give it on the "
            f"command line: --{key} VALUE"
        )
    if isinstance(found, list):
        return _read_choices(key, found)
    if isinstance(found, dict):
        return _read_range(key, found)
    raise UserError(f"{key}: {_SHAPE}, found {describe_value(found)}")


def _read_choices(key: str, found: list[Any]) -> Choices:
    if not found:
        raise UserError(f"{key}: the list is empty; {_SHAPE}")
    read = Choices(tuple(_of_type(key, value) for value in found))
    for place, label in enumerate(read.labels):
        if label in read.labels[:place]:
            raise UserError(f"{key}: {describe_value(found[place])} is there twice")
    return read


def _read_range(key: str, found: dict[Any, Any]) -> Range:
    names = ("low", "high", "log", "step")
    for name in found:
        if name not in names:
            raise UserError(f"{key}: a range has low, high, log and step, found {name!r}")
    if missing := [name for name in ("low", "high") if name not in found]:
        raise UserError(f"{key}: the range has no {missing[0]}; {_SHAPE}")
    if not {int, float} & set(hints_of(key)):
        raise UserError(f"{key}: is no number, so it has no range; {_SHAPE}")
    low, high = (_number(key, name, found[name]) for name in ("low", "high"))
    step = None if found.get("step") is None else _number(key, "step", found["step"])
    log = found.get("log", False)
    if not isinstance(log, bool):
        raise UserError(f"{key}: log: must be true or false, found {describe_value(log)}")
    if float in hints_of(key) and not (int in hints_of(key) and _all_whole(low, high, step)):
        low, high, step = float(low), float(high), None if step is None else float(step)
    elif not _all_whole(low, high, step):
        raise UserError(
            f"{key}: must be a whole number, found a range from {low} to {high}"
            + (f" in steps of {step}" if step is not None else "")
        )
    read = Range(low, high, log, step)
    _check_range(key, read)
    return read


def _check_range(key: str, read: Range) -> None:
    low, high, step = read.low, read.high, read.step
    if low > high:
        raise UserError(f"{key}: the range is empty, as low, {low}, is above high, {high}")
    largest = _LARGEST if read.is_whole else sys.float_info.max / 2
    if max(abs(low), abs(high)) > largest:
        raise UserError(f"{key}: the range goes too far; numbers up to {largest:g} can be tried")
    if read.log and low <= 0:
        raise UserError(f"{key}: low must be above 0 where log is true, found {low}")
    if step is None:
        return
    if step <= 0 or read.log:
        why = "where log is true there is none" if read.log else "it must be above 0"
        raise UserError(f"{key}: step: {why}, found {step}")
    count = (high - low) / step
    if count > _LARGEST:
        raise UserError(f"{key}: step: {step} is too small for a range from {low} to {high}")
    if abs(count - round(count)) > 1e-9 * max(count, 1):
        nearest = low + math.floor(count) * step
        raise UserError(
            f"{key}: high, {high}, is not low, {low}, and whole steps of {step}; write {nearest:g}"
        )


def _all_whole(*numbers: int | float | None) -> bool:
    return all(number is None or isinstance(number, int) for number in numbers)


def _number(key: str, name: str, value: Any) -> int | float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise UserError(f"{key}: {name}: must be a number, found {describe_value(value)}")
    return value


def _of_type(key: str, value: Any) -> Any:
    """Return a choice as the key's type has it, and as JSON gives it back.

    Raises:
        UserError: it is of another type.
    """
    hints = hints_of(key)
    if isinstance(value, (list, dict)):
        try:
            value = json.loads(json.dumps(value, allow_nan=False))
        except (TypeError, ValueError, RecursionError) as error:
            raise UserError(
                f"{key}: a choice must be of text and finite numbers ({error})"
            ) from error
    if float in hints and int not in hints and type(value) is int:
        value = float(value)
    for hint in hints:
        try:
            check_type(value, hint, key)
        except UserError:
            continue
        if not (isinstance(value, float) and not math.isfinite(value)):
            return value
    raise UserError(wrong_type(key, "null" if value is None else describe_value(value)))
