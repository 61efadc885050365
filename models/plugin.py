"""A network of the user's own, from `path/to/file.py:name` of a class or a function."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from models import user_files
from models.construct import describe
from models.registry import find, is_own, suggestion


def is_plugin(name: str) -> bool:
    """Whether the name is meant as a file and something in it."""
    return name.rpartition(":")[0].endswith(".py") or name.endswith(".py")


def load(name: str) -> Callable[..., Any]:
    """The class, or the function that returns a network; runs the file's code.

    Raises:
        ValueError: the file is missing or does not run, or holds no such network.
    """
    module, word = run(name, "ClassName")
    network: object = getattr(module, word, None)
    if network is None:
        own = [
            key
            for key, value in vars(module).items()
            if _is_network(value) and value.__module__ == module.__name__
        ]
        listing = f"It defines {', '.join(own)}." if own else "It defines no torch.nn.Module."
        raise ValueError(f"{name}: the file has no class {word!r}{suggestion(word, own)} {listing}")
    if isinstance(network, nn.Module):
        raise ValueError(
            f"{name}: {word} is a network already, whose weights no seed has decided; name its "
            f"class, or a function that makes and returns it."
        )
    if not callable(network) or (isinstance(network, type) and not _is_network(network)):
        raise ValueError(
            f"{name}: it is no function that returns a network, and {word} is no subclass of "
            f"torch.nn.Module."
        )
    return network


def run(name: str, member: str) -> tuple[ModuleType, str]:
    """Run the file of a plug-in, once in a process; its module, and the word after the colon.

    Args:
        name: `path/to/file.py:word`.
        member: what the word is, for the message where it is missing.

    Raises:
        ValueError: the file is missing or does not run.
    """
    if name.endswith(".py"):
        raise ValueError(f"{name} says only the file: write {name}:{member}.")
    file, word = _file_of(name), name.rpartition(":")[2]
    if not file.is_file():
        raise ValueError(f"{name}: there is no file {file}.")
    try:
        return user_files.run(file), word
    except (Exception, SystemExit) as error:
        raise ValueError(f"{name} does not run: {describe(error)}") from error


def source_sha256(name: str) -> str | None:
    """SHA-256 of the code of a network that is none of ours; None for any other name.

    It is that of a plug-in's file and of those that it imports, or of the lines of a network that a
    program has registered.

    Raises:
        ValueError: a plug-in does not run, or a registered network has no lines that could be read.
    """
    source: bytes | None
    if is_plugin(name):
        source = file_source(name)
    elif is_own(name):
        source = source_of(find(name))
    else:
        return None
    if source is None:
        raise ValueError(
            f"the source of {name} cannot be read, so a resumed run could not know whether it is "
            f"still the same; put it into a file."
        )
    return hashlib.sha256(source).hexdigest()


def file_source(name: str) -> bytes:
    """What a plug-in's code is: its file's, and the digests of the user's files that it imports.

    Raises:
        ValueError: as `run`.
    """
    file = _file_of(name)
    if not user_files.has_run(file):
        run(name, "name")
    return user_files.source(file)


def source_of(member: Any) -> bytes | None:
    """The lines of a function or a class; None where they cannot be read.

    A class of a notebook has them by its methods alone: Python looks for its file.
    """
    try:
        return inspect.getsource(member).encode()
    except (OSError, TypeError):
        methods = [value for value in vars(member).values() if inspect.isfunction(value)]
        if not isinstance(member, type) or not methods:
            return None
    sources = [source_of(method) for method in methods]
    return None if None in sources else b"".join(source for source in sources if source)


def _file_of(name: str) -> Path:
    return Path(name.rpartition(":")[0]).expanduser().resolve()


def _is_network(value: object) -> bool:
    return isinstance(value, type) and issubclass(value, nn.Module)
