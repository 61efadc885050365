"""Find what users add to a run, such as networks, data sets, losses and optimisers.

Each is a function or a class. A configuration names it as `path/to/file.py:name` or, in the
process that has registered it, by its registered name. A new kind is one line of `KINDS`.
"""

from __future__ import annotations

import contextlib
import hashlib
import inspect
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar, get_args

from trainer.base import user_code_errors
from trainer.base.errors import UserError
from trainer.config.augmentations import ALL_TRANSFORMS, own_augmentations_of
from trainer.config.data_names import DataName
from trainer.config.schema import LossName, OptimizerName, RunConfig, ScheduleName, flatten

Member = TypeVar("Member", bound=Callable[..., Any])

TIMM = "timm:"
"""begins the names of timm's networks and optimisers"""
TORCH = "torch:"
"""begins the names of torch's optimisers"""


@dataclass(frozen=True)
class Kind:
    """Something that users may add."""

    key: str
    """of the configuration, that names it"""
    word: str
    """for it, in messages"""
    built_in: tuple[str, ...] = ()
    """Lockstep's own names; those of networks are in the package `models`"""
    changes_weights: bool = True
    registered_as: str | None = None
    """the kind that it is registered as, where that is another one"""


KINDS = {
    "model": Kind("model.name", "network"),
    "teacher": Kind("train.teacher_model", "teacher's network", registered_as="model"),
    "dataset": Kind("data.name", "data set", get_args(DataName)),
    "augmentation": Kind("data.augment", "augmentation", ("none", *ALL_TRANSFORMS)),
    "loss": Kind("train.loss", "loss", get_args(LossName)),
    "optimizer": Kind("optimizer.name", "optimiser", get_args(OptimizerName)),
    "schedule": Kind("schedule.name", "schedule", get_args(ScheduleName)),
    "tracker": Kind("tracking.plugin", "tracker", changes_weights=False),
}

NETWORKS = ("model", "teacher")
"""kinds whose built-in names are those of the package `models` and of timm"""

CODE = {kind.key: kind.word for kind in KINDS.values() if kind.changes_weights}
"""keys that may name users' code which decides on the weights, and what they name"""


@dataclass(frozen=True)
class Plugin:
    """A user's function or class."""

    kind: str
    name: str
    member: Callable[..., Any]
    """the function or the class"""
    numbers: int = 0
    """of an augmentation: how many random numbers a sample gets"""

    def error(self, text: str) -> UserError:
        """Return the message that it is wrong: `text` goes on after its name."""
        return UserError(f"{KINDS[self.kind].key}: {self.name} {text}")

    @contextlib.contextmanager
    def explain_errors(self) -> Iterator[None]:
        """Turn an error of its code into a `UserError` that names it."""
        try:
            yield
        except UserError:
            raise
        except (Exception, SystemExit) as error:
            from models.construct import describe

            raise self.error(f"fails: {describe(error)}") from error


_registered: list[Plugin] = []
"""of one kind and name the last counts, and the others only in their own files"""


def register_model(name: str) -> Callable[[Member], Member]:
    """Decorator of a torch.nn.Module's class, or of a function that returns one."""
    return _register("model", name)


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


def register_loss(name: str) -> Callable[[Member], Member]:
    """Decorator of a function `(logits, targets, ...) -> losses`; the rest is `train.loss_args`.

    Logits are float32 (n, classes), targets the classes, int64 (n,), or where images are mixed
    their shares, float32 (n, classes); losses float32 (n,), one for each sample. Of a class the
    arguments make an object that is called in this way.
    """
    return _register("loss", name)


def register_optimizer(name: str) -> Callable[[Member], Member]:
    """Decorator of a torch.optim.Optimizer `(params, lr, ...)`; the rest is `optimizer.args`."""
    return _register("optimizer", name)


def register_schedule(name: str) -> Callable[[Member], Member]:
    """Decorator of a function `(step, total_steps, steps_per_epoch) -> factor` of optimizer.lr.

    Steps are counted from 0 after the warm-up, and `total_steps` are those after it.
    """
    return _register("schedule", name)


def register_tracker(name: str) -> Callable[[Member], Member]:
    """Decorator of a class as `trainer.run.tracking.tracker.Tracker` describes it."""
    return _register("tracker", name)


def _register(kind: str, name: str, numbers: int = 0) -> Callable[[Member], Member]:
    if not re.fullmatch(r"[A-Za-z][\w.-]*", name) or is_file(name):
        raise ValueError(
            f"{name!r}: a name is a word of letters, digits, underscores, hyphens and dots"
        )
    words = set(name.split("_")) if kind == "augmentation" else {name}
    if is_built_in(kind, name) or words <= set(KINDS[kind].built_in):
        raise ValueError(f"{name!r} is one of Lockstep's own; choose another name")

    def add(member: Member) -> Member:
        _registered.append(Plugin(kind, name, member, numbers))
        return member

    return add


# ---------------------------------------------------------------------- names


def is_file(name: str) -> bool:
    """Return whether a name means a file and something in it."""
    return name.endswith(".py") or name.rpartition(":")[0].endswith(".py")


def is_built_in(kind: str, name: str) -> bool:
    """Return whether a name is one of Lockstep's own, or of a library."""
    if kind in NETWORKS:
        import models

        return name in models.names() or name.startswith(TIMM)
    if kind == "optimizer" and is_of_library(name):
        return True
    return name in KINDS[kind].built_in


def is_of_library(name: str) -> bool:
    """Return whether an optimiser's name is one of torch's or timm's."""
    return name.startswith((TORCH, TIMM)) and not is_file(name)


def is_user_defined(kind: str, name: str) -> bool:
    """Return whether a name is a file's, or is registered in this process."""
    return is_file(name) or _by_name(kind, name) is not None


def names_in(config: RunConfig, kind: str) -> list[str]:
    """Return the names of one kind in a configuration."""
    value = flatten(config)[KINDS[kind].key]
    if kind == "augmentation":
        return own_augmentations_of(value)
    return [] if value is None else [value]


def unknown_name_error(kind: str, name: str) -> UserError:
    """Return the message for an unknown name: the nearest known names, and all."""
    known = [*KINDS[kind].built_in, *(one.name for one in _registered if one.kind == kind)]
    close = get_close_matches(name, known)
    nearest = f"; did you mean {' or '.join(close)}?" if close else ";"
    listing = f" known are {', '.join(known)};" if known else ""
    return UserError(
        f"{KINDS[kind].key}: there is no {KINDS[kind].word} {name!r}{nearest}{listing} your own is "
        f"path/to/file.py:name"
    )


def _registry(kind: str) -> str:
    return KINDS[kind].registered_as or kind


def _by_name(kind: str, name: str) -> Plugin | None:
    found = [one for one in _registered if (one.kind, one.name) == (_registry(kind), name)]
    return found[-1] if found else None


# ---------------------------------------------------------------------- code


def find(kind: str, name: str) -> Plugin:
    """Return the plug-in that a name stands for; runs a file's code once per process.

    Raises:
        UserError: names the key, and what is wrong with the name or the file.
    """
    plugin = _in_file(kind, name) if is_file(name) else _by_name(kind, name)
    if plugin is None:
        raise unknown_name_error(kind, name)
    module = sys.modules.get(inspect.unwrap(plugin.member).__module__)
    if module is not None and getattr(module, "__file__", None):
        user_code_errors.note_file(str(module.__file__))
    return plugin


def fingerprints(config: RunConfig) -> dict[str, str | None]:
    """Return the SHA-256 of the users' code that a run is made from, by the key that names it.

    It is that of whole files and of the user's files that these import; of registered names it is
    that of their own lines. None if all is Lockstep's own.

    Raises:
        UserError: there is no source, so no resume could tell whether it has changed.
    """
    found = dict[str, str | None]()
    for kind in (kind for kind in KINDS if KINDS[kind].changes_weights):
        names = [name for name in names_in(config, kind) if not is_built_in(kind, name)]
        code = b"".join(_source(kind, name) for name in names)
        found[KINDS[kind].key] = hashlib.sha256(code).hexdigest() if names else None
    return found


def _source(kind: str, name: str) -> bytes:
    from trainer.config import user_files

    if is_file(name):
        find(kind, name)  # an interpreter that goes on from run to run may have an older version
        return user_files.source(_file_of(name))
    source = _lines_of(find(kind, name).member)
    if source is None:
        raise UserError(
            f"{KINDS[kind].key}: the source of {name} cannot be read, so a resumed run could not "
            f"know whether it is still the same; put it into a file"
        )
    return source


def _lines_of(member: Any) -> bytes | None:
    """Return the lines of a function or a class; None if they cannot be read.

    For a class in a notebook they are those of its methods, as Python looks for its file.
    """
    try:
        return inspect.getsource(member).encode()
    except (OSError, TypeError):
        methods = [value for value in vars(member).values() if inspect.isfunction(value)]
        if not isinstance(member, type) or not methods:
            return None
    sources = [_lines_of(method) for method in methods]
    return None if None in sources else b"".join(source for source in sources if source)


def _file_of(name: str) -> Path:
    return Path(name.rpartition(":")[0]).expanduser().resolve()


def _in_file(kind: str, name: str) -> Plugin:
    """Find what a file has under a name: registered, or as any function or class."""
    from models.construct import describe
    from trainer.config import user_files

    key, file, wanted = KINDS[kind].key, _file_of(name), name.rpartition(":")[2]
    if name.endswith(".py"):
        raise UserError(f"{key}: {name} says only the file: write {name}:name")
    if not file.is_file():
        raise UserError(f"{key}: {name}: there is no file {file}")
    try:
        module = user_files.import_file(file)
    except (Exception, SystemExit) as error:
        raise UserError(f"{key}: {name} does not run: {describe(error)}") from error
    members = vars(module)
    for one in _registered:
        names = [word for word, member in members.items() if member is one.member]
        if one.kind == _registry(kind) and (wanted in names or (names and one.name == wanted)):
            return one
    if callable(members.get(wanted)):
        return Plugin(kind, wanted, members[wanted])
    defined = [
        word for word, member in members.items()
        if callable(member) and getattr(member, "__module__", None) == module.__name__
    ]  # fmt: skip
    close = get_close_matches(wanted, defined)
    nearest = f"; did you mean {' or '.join(close)}?" if close else ";"
    listing = f"defines {', '.join(defined)}" if defined else "defines no function or class"
    raise UserError(
        f"{key}: {name}: the file has no {KINDS[kind].word} {wanted!r}{nearest} it {listing}"
    )
