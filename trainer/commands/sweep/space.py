"""What a sweep tries: for each key of its space a list of choices, or a range."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainer.base.errors import UserError
from trainer.base.strict_json import check_type, describe_value, read_text
from trainer.config import command_line
from trainer.config.key_errors import hints_of, unknown_key, wrong_type
from trainer.config.same_run import FREE_KEYS
from trainer.config.schema import RunConfig, flatten, replace

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

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
_DIGITS = 4


@dataclass(frozen=True)
class Choices:
    """Some values, of which a trial gets one."""

    values: tuple[Any, ...]

    def distribution(self) -> BaseDistribution:
        """Return them as Optuna knows them."""
        from optuna.distributions import CategoricalDistribution

        return CategoricalDistribution(self.labels)

    @property
    def labels(self) -> list[Any]:
        """A plain value for each choice, as Optuna stores it; of lists and mappings their JSON."""
        return [
            json.dumps(value) if isinstance(value, (list, dict)) else value for value in self.values
        ]

    def label(self, suggested: Any) -> Any:
        """Return the label for what Optuna suggests."""
        return suggested

    def value(self, label: Any) -> Any:
        """Return the value of a label."""
        return self.values[self.labels.index(label)]

    @property
    def ends(self) -> tuple[Any, ...]:
        """The values by which the space is checked: all."""
        return self.values


@dataclass(frozen=True)
class Range:
    """The numbers from `low` to `high`: whole ones if both are."""

    low: int | float
    high: int | float
    log: bool = False
    step: int | float | None = None

    @property
    def is_whole(self) -> bool:
        """Whether it is of whole numbers."""
        return isinstance(self.low, int)

    def distribution(self) -> BaseDistribution:
        """Return it as Optuna knows it."""
        from optuna.distributions import FloatDistribution, IntDistribution

        if self.is_whole:
            low, high = int(self.low), int(self.high)
            return IntDistribution(low, high, log=self.log, step=int(self.step or 1))
        return FloatDistribution(self.low, self.high, log=self.log, step=self.step)

    def label(self, suggested: Any) -> Any:
        """Return a suggested number in a few digits, which people can read and machines agree on.

        They are enough for ten thousand different numbers in the range; on a logarithmic scale
        four digits, whatever the size of the number.
        """
        if self.is_whole:
            return suggested
        if self.step is not None:
            return float(f"{suggested:.12g}")  # 0.3 rather than 0.30000000000000004
        spread = self.high - self.low
        scale = suggested if self.log and self.high >= 2 * self.low else spread
        if scale == 0:
            return suggested
        decimals = _DIGITS - 1 - math.floor(math.log10(abs(scale)))
        return min(max(round(suggested, decimals), self.low), self.high)

    def value(self, label: Any) -> Any:
        """Return the number of a label: itself."""
        return label

    @property
    def ends(self) -> tuple[Any, ...]:
        """The values by which the space is checked: the ends."""
        return (self.low, self.high)


Space = dict[str, Choices | Range]
"""by the dotted key, sorted"""


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


def as_plain(space: Space) -> dict[str, Any]:
    """Return a space as JSON has it, by which two are compared."""
    return {
        key: list(of.values)
        if isinstance(of, Choices)
        else {"low": of.low, "high": of.high, "log": of.log, "step": of.step}
        for key, of in space.items()
    }


def check(
    space: Space, base: RunConfig, check_config: Callable[[RunConfig], object], path: Path
) -> None:
    """Make sure that each choice, and each end of a range, is in some configuration of the sweep.

    It is tried with the recipe's other values, and with every other choice of one other key.

    Args:
        check_config: raises what is wrong with a configuration.

    Raises:
        UserError: what the recipe with a value is refused for.
    """
    for key, of in space.items():
        for value in of.ends:
            error = _refusal(base, {key: value}, check_config)
            if error is None:
                continue
            others = ({key: value, name: end} for name in space if name != key
                      for end in space[name].ends)  # fmt: skip
            if all(_refusal(base, values, check_config) for values in others):
                raise UserError(f"--space: {path}: {key}: {value!r} is refused: {error}") from error


def words(keys: Mapping[str, Any]) -> list[str]:
    """Return keys with their values as arguments of train.py."""
    return [word for key, value in keys.items() for word in (f"--{key}", _word(value))]


def _word(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _refusal(
    base: RunConfig, values: dict[str, Any], check_config: Callable[[RunConfig], object]
) -> UserError | None:
    try:
        check_config(command_line.complete(replace(base, values)))
    except UserError as error:
        return error
    return None


def _parse(text: str) -> Any:
    """Return the content of YAML, with numbers such as 1e-3 as a recipe may have them."""
    import yaml
    from jsonargparse import get_loader

    try:
        return get_loader("yaml")(text)
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
    if read.log and low <= 0:
        raise UserError(f"{key}: low must be above 0 where log is true, found {low}")
    if step is None:
        return
    if step <= 0 or read.log:
        why = "where log is true there is none" if read.log else "it must be above 0"
        raise UserError(f"{key}: step: {why}, found {step}")
    count = (high - low) / step
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
