"""What a sweep tries: for each key of its space a list of choices, or a range."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainer.base.errors import UserError
from trainer.config import command_line
from trainer.config.schema import RunConfig, replace

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

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
    return [word for key, value in keys.items() for word in (f"--{key}", word_of(value))]


def word_of(value: Any) -> str:
    """Return a value as a command line has it."""
    return value if isinstance(value, str) else json.dumps(value)


def _refusal(
    base: RunConfig, values: dict[str, Any], check_config: Callable[[RunConfig], object]
) -> UserError | None:
    try:
        check_config(command_line.complete(replace(base, values)))
    except UserError as error:
        return error
    return None
