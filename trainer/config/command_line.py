"""Turn a YAML file and the command line into a `RunConfig`, and that into YAML."""

from __future__ import annotations

import dataclasses
import functools
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from jsonargparse import (
    ArgumentError,
    ArgumentParser,
    Namespace,
    set_loader,
    set_parsing_settings,
)
from yaml import YAMLError

from trainer.base.errors import UserError
from trainer.config import plugin_checks, stored_config, strict_yaml
from trainer.config.key_errors import check_not_null, explain_parser_error, section_expected
from trainer.config.rules import check_average, is_unicode, validate
from trainer.config.schema import RunConfig, averaged_epochs, replace

RECIPES = Path(__file__).resolve().parents[2] / "configs"
DEFAULT_RECIPE = RECIPES / "fashion_mnist.yaml"
PARSER_MODE = "strict_yaml"
"""the parser's name of what reads recipes, beside its own that other programs use"""

DESCRIPTION = """
Train a convolutional image classifier. The run is a function of its configuration: the same result
on any number of processes, and after any kill when the same command is given again.

example: python train.py --config configs/digits.yaml --train.epochs 5
"""


def parse(arguments: Sequence[str]) -> RunConfig:
    """Return the configuration that a command line asks for; `--help` prints and exits.

    Without `--config` it is the default recipe; `--config digits` is our recipe of that name,
    wherever Lockstep is installed. `output_dir` is filled in from the file's name.

    Raises:
        UserError: names the key or the file that is wrong.
    """
    arguments = list(arguments)
    if not any(word == "--config" or word.startswith("--config=") for word in arguments):
        arguments = ["--config", str(DEFAULT_RECIPE), *arguments]
    return _parse(arguments, {})


def combine(recipe: str | os.PathLike[str] | RunConfig, changes: Mapping[str, Any]) -> RunConfig:
    """Return the configuration of a recipe with changes, for programs.

    Args:
        recipe: a YAML file, or a whole configuration.
        changes: values of keys; of a section a mapping of those of its keys that change.

    Raises:
        UserError: names the key or the file that is wrong.
    """
    if isinstance(recipe, RunConfig):
        parser = _parser()
        return _finish(parser, parser.parse_object(dataclasses.asdict(recipe)), changes, None)
    return _parse(["--config", os.fspath(recipe)], changes)


def parse_for_run(
    folder: Path,
    arguments: Sequence[str],
    allowed: Sequence[str],
    read: Callable[[Path], RunConfig] = stored_config.read_folder,
) -> RunConfig:
    """Return the configuration of the run in a folder, with the changes of a command line.

    Args:
        allowed: the keys, or whole sections such as `data.`, that may be set.
        read: reads the configuration of the folder.

    Raises:
        UserError: there is no run; or a key is unknown or not allowed, or its value is wrong; or
            the data set is code that the user has not named.
    """
    stored, changes = read(folder), _changes(arguments, allowed)
    if "data.name" not in changes:
        plugin_checks.check_code(stored, folder, {}, ["data.name"])
    if changes.get("data.validation_size") == 0:
        # What validation images were for belongs to the training, which is over.
        changes |= {"train.choose_by": None, "train.patience": None, "train.calibrate": False}
    config = replace(stored, changes)
    check_not_null(config)
    validate(config)
    return config


def _changes(arguments: Sequence[str], allowed: Sequence[str]) -> dict[str, Any]:
    """Return the dotted keys that a command line sets, to change an existing configuration."""
    parser = _parser()
    try:
        values = parser.parse_args(list(arguments), defaults=False)
        values.pop("config", None)
        found = {str(key): value for key, value in values.items()}
    except (ArgumentError, TypeError) as error:
        raise UserError(explain_parser_error(str(error))) from error
    for key in found:
        if not key.startswith(tuple(allowed)):
            keys = ", ".join(f"{one}*" if one.endswith(".") else one for one in allowed)
            raise UserError(f"{key}: belongs to the run; here only {keys} can be set")
    return found


def is_console_command() -> bool:
    """Return whether this process is the installed `lockstep`, which help then names."""
    return Path(sys.argv[0]).stem == "lockstep"


def to_yaml(config: RunConfig) -> str:
    """Return the whole configuration as YAML; running it again repeats the run."""
    import yaml

    return yaml.safe_dump(dataclasses.asdict(config), sort_keys=False, allow_unicode=True)


def _parse(arguments: list[str], changes: Mapping[str, Any]) -> RunConfig:
    parser = _parser(with_help="--help" in arguments or "-h" in arguments)
    arguments = _replace_recipe_names(arguments)
    try:
        values = parser.parse_args(arguments)
    except (ArgumentError, TypeError, UserError) as error:
        raise UserError(_recipe_prefix(arguments) + explain_parser_error(str(error))) from error
    except UnicodeDecodeError as error:
        raise UserError(f"--config: the recipe is not text in UTF-8 ({error})") from error
    return _finish(parser, values, changes, Path(str(values["config"][-1])))


def _finish(
    parser: ArgumentParser, values: Namespace, changes: Mapping[str, Any], recipe: Path | None
) -> RunConfig:
    """Make the configuration of parsed values and a program's changes; fill `output_dir` in."""
    for name, value in changes.items():
        is_section = dataclasses.is_dataclass(getattr(RunConfig(), name, None))
        if is_section and not isinstance(value, Mapping):
            raise UserError(f"{name}: must be a section such as {{...}}, found {value!r}")
    try:
        if changes:
            values = parser.parse_object(_plain(changes), values)
        values.pop("config", None)
        for name, default in vars(RunConfig()).items():
            if dataclasses.is_dataclass(default) and not isinstance(values[name], Namespace):
                raise UserError(section_expected(name))
        config = RunConfig(**parser.instantiate(values).as_dict())
    except (ArgumentError, TypeError) as error:
        raise UserError(explain_parser_error(str(error))) from error
    if config.output_dir is None:
        if recipe is None:
            raise UserError("output_dir: null, and there is no recipe file to name it after")
        config = dataclasses.replace(config, output_dir=str(Path("runs") / recipe.stem))
    return complete(config)


def complete(config: RunConfig) -> RunConfig:
    """Return a configuration, whose values have the right types, as a run is started with it.

    Raises:
        UserError: names the key that is wrong.
    """
    check_not_null(config)
    validate(config)
    # A number from here on, so that config.yaml records what was done.
    config = replace(config, {"train.average_epochs": averaged_epochs(config.train)})
    check_average(config)
    plugin_checks.check_names(config)
    return config


def _plain(changes: Mapping[str, Any]) -> dict[str, Any]:
    """Turn paths into text, as keys need it."""
    return {
        key: os.fspath(value)
        if isinstance(value, os.PathLike)
        else _plain(value)
        if isinstance(value, Mapping)
        else value
        for key, value in changes.items()
    }


def _replace_recipe_names(arguments: Sequence[str]) -> list[str]:
    """Replace the name of one of our recipes by its file."""
    words = list(arguments)
    own = {path.stem: path for path in RECIPES.glob("*.yaml")}
    for place, word in enumerate(words):
        option = "--config=" if word.startswith("--config=") else ""
        name = word.removeprefix(option)
        follows = words[place - 1 : place] == ["--config"]
        if (option or follows) and not name:
            raise UserError(
                "--config: is empty; name a recipe (is a variable of the shell not set?)"
            )
        if (option or follows) and not is_unicode(name):
            raise UserError(f"--config: {name!a} is not in UTF-8; rename the file or its folder")
        if (option or follows) and name in own and not Path(name).is_file():
            words[place] = f"{option}{own[name]}"
    return words


def _recipe_prefix(arguments: list[str]) -> str:
    """Return the recipe's name as a prefix if it is wrong without the other arguments too."""
    place = next(i for i, word in enumerate(arguments) if word.split("=")[0] == "--config")
    word = arguments[place : place + 1 if "=" in arguments[place] else place + 2]
    try:
        _parser().parse_args(word)
    except (ArgumentError, TypeError, UserError):
        return f"{word[-1].removeprefix('--config=')}: "
    return ""


def _parser(*, with_help: bool = False) -> ArgumentParser:
    return _make_parser("lockstep train" if is_console_command() else "train.py", with_help)


@functools.cache  # a tenth of a second each time, for each trial of a sweep
def _make_parser(program: str, with_help: bool) -> ArgumentParser:
    """Make the parser; what the help says of each key is read from the schema's source."""
    set_parsing_settings(docstring_parse_attribute_docstrings=with_help)
    set_loader(PARSER_MODE, strict_yaml.load_recipe, (YAMLError,))
    parser = ArgumentParser(
        prog=program,
        description=DESCRIPTION,
        exit_on_error=False,
        allow_abbrev=False,
        parser_mode=PARSER_MODE,
    )
    parser.add_argument(
        "--config",
        action="config",
        help="the recipe: a YAML file, or the name of one of ours, such as digits",
    )
    parser.add_class_arguments(RunConfig)
    return parser
