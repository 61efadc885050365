"""Read the config.yaml of a run as plain values, as somebody else may have written it.

The command line's parser serves its user: it imports what a value names as a class, and opens what
a value names as a file. The folder of a run must do neither.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

from trainer.base.errors import UserError
from trainer.base.kernels import Kernels
from trainer.base.strict_json import check_type, describe_value, parse_json, read_text
from trainer.config.rules import validate
from trainer.config.schema import DataConfig, RunConfig, nest

T = TypeVar("T")


def read_folder(folder: Path) -> RunConfig:
    """Return the configuration of the run in a folder.

    Raises:
        UserError: there is no run; or as `read`.
    """
    path = folder / "config.yaml"
    if not path.is_file():
        raise UserError(f"{folder}: not a run, there is no config.yaml in it")
    return read(path)


def read_folds(folder: Path) -> RunConfig:
    """Return the configuration that the folds of the cross-validation in a folder have in common.

    Raises:
        UserError: it is not finished; or as `read`.
    """
    path = folder / "recipe.yaml"
    if not path.is_file():
        raise UserError(
            f"{folder}: its cross-validation is not finished, there is no recipe.yaml in it; the "
            "same crossval command goes on with it"
        )
    return read(path)


def holds_folds(folder: Path) -> bool:
    """Return whether a folder is that of a cross-validation, finished or not."""
    return (folder / "recipe.yaml").is_file() or any(folder.glob("fold-*/config.yaml"))


def read(path: Path) -> RunConfig:
    """Return the configuration in a run's config.yaml.

    Raises:
        UserError: names the file and the key that is wrong.
    """
    return _checked(_parse(read_text(path), path), path)


def from_flat(flat: dict[str, Any], path: Path) -> RunConfig:
    """Return the configuration with these dotted keys, and defaults for the others.

    Args:
        path: of the file that they are from.

    Raises:
        UserError: names the file and the key that is wrong.
    """
    return _checked(nest(flat), path)


def _checked(values: Any, path: Path) -> RunConfig:
    _say_what_was_meant(values)
    try:
        config = _build(RunConfig, values, "")
        validate(config)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    return config


def kernels_of(run: Path) -> Kernels:
    """Return `train.kernels` of a run, native where nothing says it; imports nothing heavy.

    Args:
        run: its folder, its receipt, or its model.safetensors, which may have been moved.

    Raises:
        UserError: its configuration is damaged.
    """
    if run.suffix == ".json" and run.is_file():
        found = parse_json(read_text(run), run)
        configuration = found.get("configuration") if isinstance(found, dict) else None
        values = configuration if isinstance(configuration, dict) else {}
        return "portable" if values.get("train.kernels") == "portable" else "native"
    folder = run if run.is_dir() else run.parent
    return read_folder(folder).train.kernels if (folder / "config.yaml").is_file() else "native"


def _parse(text: str, path: Path) -> Any:
    import yaml

    from trainer.config import strict_yaml

    try:
        return strict_yaml.load(text)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    except (yaml.YAMLError, ValueError, LookupError, RecursionError) as error:
        words = " ".join(str(error).split())[:200]
        raise UserError(f"{path}: damaged, not YAML that Lockstep writes ({words})") from error


def _say_what_was_meant(values: Any) -> None:
    """Fill in the keys that older versions did not have, where their default means another run."""
    train = values.get("train") if isinstance(values, dict) else None
    data = values.get("data") if isinstance(values, dict) else None
    if isinstance(train, dict) and not (
        isinstance(data, dict) and data.get("validation_size") == 0
    ):
        train.setdefault("choose_by", "first_accuracy")
    if not isinstance(data, dict):
        return
    if data.get("name") == "folder":
        data.setdefault("resize", "stretch")
    name = data.get("name")
    if isinstance(name, str) and DataConfig(name=name).has_pictures:
        data.setdefault("crop_share", 1.0)
        data.setdefault("interpolation", "bilinear")


def _build(kind: type[T], values: Any, section: str) -> T:
    """Make a dataclass from its values by name, each of them of the annotated type."""
    if not isinstance(values, dict):
        raise UserError(
            f"{section or 'config.yaml'}: must have keys, found {describe_value(values)}"
        )
    hints = get_type_hints(kind)
    built = {}
    for name, value in values.items():
        hint = hints.get(name)
        key = f"{section}.{name}" if section else str(name)
        if hint is None:
            raise UserError(f"{describe_value(key)} is not a key of a configuration")
        if dataclasses.is_dataclass(hint):
            value = _build(hint, value, key)  # type: ignore[arg-type]
        else:
            check_type(value, hint, key)
        built[name] = value
    return kind(**built)
