"""Check the names of users' code in a configuration, before any file is opened."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from trainer.base.errors import UserError
from trainer.config import augmentations, plugins
from trainer.config.data_rules import AUGMENT_RULE
from trainer.config.plugins import KINDS, NETWORKS, TIMM
from trainer.config.schema import RunConfig, flatten


def check_names(config: RunConfig) -> None:
    """Make sure that this process knows every name; networks are checked when they are built.

    The configuration of a stored run may have names that another process has registered.

    Raises:
        UserError: names the key and the nearest names.
    """
    for kind in KINDS.keys() - set(NETWORKS):
        for name in plugins.names_in(config, kind):
            if _is_known(kind, name):
                continue
            if kind == "augmentation":
                policy = config.data.augment
                if isinstance(policy, list):
                    raise UserError(augmentations.unknown_name_message(policy, name))
                raise UserError(f"data.augment: must be {AUGMENT_RULE}, found {policy!r}")
            raise plugins.unknown_name_error(kind, name)


def needs_naming(kind: str, name: str) -> bool:
    """Return whether a name means code that runs only if the user has named it."""
    of_timm = kind == "model" and name.startswith(TIMM)  # which may load any weights
    return plugins.is_file(name) or of_timm or not _is_known(kind, name)


def check_code(
    config: RunConfig, folder: Path, named: Mapping[str, Any], keys: Collection[str]
) -> None:
    """Make sure that a run's folder, which somebody may have sent, runs only code the user names.

    Args:
        config: of the run in the folder.
        named: what the user has named, by the key.
        keys: those of `plugins.CODE` that are about to be used.

    Raises:
        UserError: names the key and what there is to name; or a part was registered in another
            process, so that this one cannot know it.
    """
    values = flatten(config)
    for kind, about in KINDS.items():
        key = about.key
        if key not in keys:
            continue
        for name in plugins.names_in(config, kind):
            if not _is_known(kind, name):
                raise UserError(
                    f"{key}: {name} of {folder} was registered in the program that did the run and "
                    f"is not known here, so the run cannot be computed again; that of a part in a "
                    f"file, named path/to/file.py:{name} from the start, can"
                )
            if key not in named and needs_naming(kind, name):
                # In quotes a list is one word of a command line.
                spelled = f'"{values[key]}"' if isinstance(values[key], list) else values[key]
                raise UserError(
                    f"{key}: {values[key]} of {folder} is code that is not Lockstep's; to run it, "
                    f"name it yourself: --{key} {spelled}"
                )
        if key in named and _drop_folders(kind, named[key]) != _drop_folders(kind, values[key]):
            raise UserError(f"--{key}: {named[key]}, but the run had {values[key]}")


def _is_known(kind: str, name: str) -> bool:
    return plugins.is_built_in(kind, name) or plugins.is_user_defined(kind, name)


def _drop_folders(kind: str, value: str | list[Any]) -> list[Any]:
    """Split a value into its parts; of one in a file, which may have moved, keep what follows."""
    if isinstance(value, list):
        pieces = augmentations.canonical(value)
    else:
        pieces = value.split("+") if kind == "augmentation" else [value]
    return [
        f":{piece.rpartition(':')[2]}"
        if isinstance(piece, str) and plugins.is_file(piece)
        else piece
        for piece in pieces
    ]
