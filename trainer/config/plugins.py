"""What users add under names of their own: data sets, augmentations, optimisers, trackers.

Each is one function or class. A configuration names it as `path/to/file.py:name`, or, in the
process that registered it, by the registered name alone.
"""

from __future__ import annotations

import contextlib
import hashlib
import inspect
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

from trainer.base.errors import UserError
from trainer.config.schema import (
    TRANSFORMS,
    DataName,
    OptimizerName,
    RunConfig,
    flatten,
    own_augmentations_of,
)

Kind = Literal["dataset", "augmentation", "optimizer", "tracker"]
Member = TypeVar("Member", bound=Callable[..., Any])

KEYS: dict[Kind, str] = {
    "dataset": "data.name",
    "augmentation": "data.augment",
    "optimizer": "optimizer.name",
    "tracker": "tracking.plugin",
}
"""where a configuration names them"""

CODE = {
    "model.name": "network",
    "data.name": "data set",
    "data.augment": "augmentation",
    "optimizer.name": "optimiser",
}
"""keys that may name code of a user's own which decides on the weights, and what they name"""

BUILT_IN: dict[Kind, tuple[str, ...]] = {
    "dataset": get_args(DataName),
    "augmentation": ("none", *TRANSFORMS),
    "optimizer": get_args(OptimizerName),
    "tracker": (),
}


@dataclass(frozen=True)
class Extension:
    """One of them."""

    kind: Kind
    name: str
    member: Callable[..., Any]
    """the function or the class"""
    numbers: int = 0
    """of an augmentation: how many random numbers a sample gets"""


_registered: dict[Kind, dict[str, Extension]] = {kind: {} for kind in KEYS}
_all: dict[Kind, list[Extension]] = {kind: [] for kind in KEYS}
"""also those of a name that was registered again since, as by another file"""


def register_dataset(name: str) -> Callable[[Member], Member]:
    """Decorator of a function `(root) -> OwnImages`, where root is `data.root`."""
    return _register("dataset", name)


def register_augmentation(name: str, *, numbers: int = 0) -> Callable[[Member], Member]:
    """Decorator of a function `(images, numbers) -> images`.

    Images are uint8 (n, channels, height, width); numbers float32 (n, `numbers`) in [0, 1), drawn
    by the run's seed for each sample in each epoch, and all the randomness that there may be.
    """
    if numbers < 0:
        raise ValueError(f"an augmentation takes 0 or more random numbers a sample, not {numbers}")
    return _register("augmentation", name, numbers)


def register_optimizer(name: str) -> Callable[[Member], Member]:
    """Decorator of a torch.optim.Optimizer `(params, lr, ...)`; the rest is `optimizer.args`."""
    return _register("optimizer", name)


def register_tracker(name: str) -> Callable[[Member], Member]:
    """Decorator of a class as `trainer.run.tracking.trackers.OwnTracker` describes it."""
    return _register("tracker", name)


def _register(kind: Kind, name: str, numbers: int = 0) -> Callable[[Member], Member]:
    if not re.fullmatch(r"[A-Za-z]\w*", name):
        raise ValueError(f"{name!r}: a name is a word of letters, digits and underscores")
    if name in BUILT_IN[kind] or (kind == "augmentation" and set(name.split("_")) <= {*TRANSFORMS}):
        raise ValueError(f"{name!r} is one of Lockstep's own; choose another name")

    def add(member: Member) -> Member:
        extension = Extension(kind, name, member, numbers)
        _registered[kind][name] = extension
        _all[kind].append(extension)
        return member

    return add


def is_file(name: str) -> bool:
    """Whether a name is meant as a file and a member of it."""
    return name.endswith(".py") or name.rpartition(":")[0].endswith(".py")


def is_own(kind: Kind, name: str) -> bool:
    """Whether a name is a file's or a registered one."""
    return is_file(name) or name in _registered[kind]


def check_name(kind: Kind, name: str) -> None:
    """Make sure that a name means something in this process; no file is opened.

    Raises:
        UserError: with the nearest names, and all.
    """
    if name not in BUILT_IN[kind] and not is_own(kind, name):
        raise _unknown(kind, name)


def check_named(
    config: RunConfig, folder: Path, named: Mapping[str, str], keys: Collection[str]
) -> None:
    """Make sure that a run's folder brings about no code that the user has not named.

    Somebody may have sent it.

    Args:
        config: of the run in the folder.
        named: what the user has named, by the key.
        keys: what is about to be used of model.name, data.name, data.augment, optimizer.name.

    Raises:
        UserError: names the key and what there is to name.
    """
    import models

    values = flatten(config)
    own = {
        "model.name": config.model.name not in models.names(),
        "data.name": is_file(config.data.name),
        "data.augment": any(map(is_file, own_augmentations_of(config.data.augment))),
        "optimizer.name": is_file(config.optimizer.name),
    }
    for key in keys:
        name, given = values[key], named.get(key)
        if given is None and own[key]:
            raise UserError(
                f"{key}: {name} of {folder} is code that is not Lockstep's; to run it, name it "
                f"yourself: --{key} {name}"
            )
        if given is not None and _without_folders(key, given) != _without_folders(key, name):
            raise UserError(f"--{key}: {given}, but the run had {name}")


def _without_folders(key: str, name: str) -> list[str]:
    """The parts of a name; of a part in a file, which may lie elsewhere, only what follows it."""
    pieces = name.split("+") if key == "data.augment" else [name]
    return [f":{piece.rpartition(':')[2]}" if is_file(piece) else piece for piece in pieces]


def check_known(config: RunConfig, folder: Path) -> None:
    """Make sure that this process knows all code of a run's folder that no file is named for.

    Raises:
        UserError: names the key, and how a run would be one for other processes too.
    """
    import models
    from models.timm_models import PREFIX

    def unknown(kind: Kind, names: list[str]) -> list[str]:
        return [name for name in names if name not in BUILT_IN[kind] and not is_own(kind, name)]

    model = config.model.name
    is_known = model in models.names() or is_file(model) or model.startswith(PREFIX)
    for key, names in {
        "model.name": [] if is_known else [model],
        "data.name": unknown("dataset", [config.data.name]),
        "data.augment": unknown("augmentation", own_augmentations_of(config.data.augment)),
        "optimizer.name": unknown("optimizer", [config.optimizer.name]),
    }.items():
        for name in names:
            raise UserError(
                f"{key}: {name} of {folder} was registered in the program that did the run and is "
                f"not known here, so the run cannot be computed again; that of a part in a file, "
                f"named path/to/file.py:{name} from the start, can"
            )


def find(kind: Kind, name: str) -> Extension:
    """What a name stands for; runs the code of a file.

    Raises:
        UserError: names the key, and what is wrong with the name or the file.
    """
    if is_file(name):
        return _from_file(kind, name)
    if name not in _registered[kind]:
        raise _unknown(kind, name)
    return _registered[kind][name]


@contextlib.contextmanager
def running(extension: Extension) -> Iterator[None]:
    """Around its code, of which an error becomes a `UserError` that names the extension."""
    try:
        yield
    except UserError:
        raise
    except (Exception, SystemExit) as error:
        from models.construct import describe, file_of

        file = file_of(inspect.unwrap(extension.member))
        raise wrong(extension, f"fails: {describe(error, file)}") from error


def wrong(extension: Extension, what: str) -> UserError:
    """The message for what is wrong with it."""
    return UserError(f"{KEYS[extension.kind]}: {extension.name} {what}")


def source_sha256(kind: Kind, names: list[str]) -> str | None:
    """Of the code that they stand for: whole files and what of the user's own these import.

    Of registered ones it is their own lines.

    Returns:
        None where all are Lockstep's own.

    Raises:
        UserError: there is no source, so that no resume could tell whether it is still the same.
    """
    own = [name for name in names if name not in BUILT_IN[kind]]
    return (
        hashlib.sha256(b"".join(_source(kind, name) for name in own)).hexdigest() if own else None
    )


def fingerprints(config: RunConfig) -> dict[str, str | None]:
    """SHA-256 of the users' code that a run is made from, by the key that names it.

    Raises:
        UserError: as `source_sha256`.
    """
    import models

    try:
        model = models.source_sha256(config.model.name)
    except ValueError as error:
        raise UserError(f"model.name: {error}") from error
    return {
        "model.name": model,
        "data.name": source_sha256("dataset", [config.data.name]),
        "data.augment": source_sha256("augmentation", own_augmentations_of(config.data.augment)),
        "optimizer.name": source_sha256("optimizer", [config.optimizer.name]),
    }


def _source(kind: Kind, name: str) -> bytes:
    from models import plugin

    if is_file(name):
        try:
            return plugin.file_source(name)
        except ValueError as error:
            raise UserError(f"{KEYS[kind]}: {error}") from error
    source = plugin.source_of(find(kind, name).member)
    if source is None:
        raise UserError(
            f"{KEYS[kind]}: the source of {name} cannot be read, so a resumed run could not know "
            f"whether it is still the same; put it into a file"
        )
    return source


def _from_file(kind: Kind, name: str) -> Extension:
    from models import plugin

    try:
        module, wanted = plugin.run(name, "name")
    except ValueError as error:
        raise UserError(f"{KEYS[kind]}: {error}") from error
    members = [value for value in vars(module).values() if callable(value)]
    own = {
        found.name: found
        for found in _all[kind]
        if any(found.member is member for member in members)
    }
    for found in own.values():
        if found.name == wanted or vars(module).get(wanted) is found.member:
            return found
    listing = f"it registers {', '.join(own)}" if own else f"it registers no {kind}"
    raise UserError(
        f"{KEYS[kind]}: {name}: {listing}; write @register_{kind}({wanted!r}) above what is meant"
    )


def _unknown(kind: Kind, name: str) -> UserError:
    known = [*BUILT_IN[kind], *_registered[kind]]
    close = get_close_matches(name, known)
    nearest = f"; did you mean {' or '.join(close)}?" if close else ";"
    listing = f" known are {', '.join(known)};" if known else ""
    return UserError(
        f"{KEYS[kind]}: there is no {kind} {name!r}{nearest}{listing} one of your own is "
        f"path/to/file.py:name"
    )
