"""What a sweep is: a recipe, a space, and the rules by which its trials follow from them."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainer.base.errors import UserError
from trainer.commands.sweep import space
from trainer.commands.sweep.space import Space
from trainer.config import command_line, stored_config
from trainer.config.same_run import FREE_KEYS, differences, keys_of_run
from trainer.config.schema import ChoiceName, RunConfig, default_choice, flatten, folder_of, replace


class ChangedError(UserError):
    """The recipe has changed, so that the sweep cannot go on; no fault of a trial."""


@dataclass(frozen=True)
class Sweep:
    """What a command is asked to do."""

    arguments: tuple[str, ...]
    """of the command line, those of a run"""
    base: RunConfig
    """what they mean; its folder is that of the sweep"""
    space: Space
    trials: int
    at_once: int
    """trial N sees the results of those up to N - at_once"""
    prunes: bool
    judged_by: ChoiceName
    """the figure of the validation images, the same for all trials"""

    @property
    def folder(self) -> Path:
        """Where everything is."""
        return folder_of(self.base)

    @property
    def minimize(self) -> bool:
        """Whether a lower figure is better."""
        return self.judged_by == "loss"

    def folder_of(self, number: int) -> Path:
        """Return the folder of a trial's run."""
        return self.folder / f"trial-{number:04d}"

    def words_of(self, number: int, keys: Mapping[str, Any]) -> list[str]:
        """Return the arguments of train.py for a trial's run."""
        words = [*_of_each_trial(self.arguments), *space.words(keys)]
        asked = replace(self.base, dict(keys))
        if asked.train.choose_by is None and default_choice(asked) != self.judged_by:
            words += ["--train.choose_by", self.judged_by]
        return [*words, "--output_dir", str(self.folder_of(number))]

    def command_of(self, number: int, keys: Mapping[str, Any]) -> str:
        """Return the command by which a trial's run is done by hand."""
        return shlex.join(["python", "train.py", *self.words_of(number, keys)])

    def config_of(self, number: int, keys: Mapping[str, Any]) -> RunConfig:
        """Return the configuration of a trial's run.

        Raises:
            ChangedError: the recipe is another one than when this command began.
            UserError: such a configuration is refused.
        """
        found = command_line.parse(self.words_of(number, keys))
        own = {*keys, "train.average_epochs", "train.choose_by"}
        values = {key: value for key, value in flatten(self.base).items() if key in own}
        if changed := differences(replace(found, values), self.base):
            raise ChangedError(
                "--config: the recipe has changed since this command began (now against then): "
                f"{'; '.join(changed)}; put it back as it was"
            )
        return replace(found, {"train.choose_by": self.judged_by, "train.max_seconds": None})

    def as_plain(self) -> dict[str, Any]:
        """Return what the results depend on, as the journal has it."""
        return {
            "configuration": keys_of_run(self.base),
            "space": space.as_plain(self.space),
            "at_once": self.at_once,
            "pruning": "median" if self.prunes else "none",
        }

    def check_same(self, stored: Mapping[str, Any], path: Path) -> None:
        """Make sure that a journal is of this sweep.

        Args:
            stored: as `as_plain` gave it.
            path: of the journal.

        Raises:
            UserError: names what is different.
        """
        try:
            # Of the keys that are not stored, some must be there, such as a folder of pictures.
            free = {key: value for key, value in flatten(self.base).items() if key in FREE_KEYS}
            theirs = stored_config.from_flat(free | stored["configuration"], path)
            differing = differences(self.base, theirs)
            for name, value in self.as_plain().items():
                if name != "configuration" and value != stored[name]:
                    differing.append(f"{name}: {value} against {stored[name]}")
        except (KeyError, TypeError) as error:
            raise UserError(
                f"{path}: was not written by a sweep of this version ({error})"
            ) from error
        if differing:
            raise UserError(
                f"output_dir: {self.folder} holds another sweep; choose another folder, or the "
                f"same values (asked for against there): {'; '.join(differing)}"
            )


def _of_each_trial(arguments: Sequence[str]) -> list[str]:
    """Return arguments without those that are of the sweep: its folder and its time."""
    words, skip = list[str](), False
    for word in arguments:
        name, _, value = word.partition("=")
        if skip:
            skip = False
        elif name in ("--output_dir", "--train.max_seconds"):
            skip = not value
        else:
            words.append(word)
    return words
