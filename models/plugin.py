"""A network of the user's own, from `path/to/file.py:ClassName`."""

from __future__ import annotations

import hashlib
import importlib.util
import inspect
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from models.construct import describe
from models.registry import find, is_own, suggestion


def is_plugin(name: str) -> bool:
    """Whether the name is meant as a file and a class in it."""
    return name.rpartition(":")[0].endswith(".py") or name.endswith(".py")


def load(name: str) -> type[nn.Module]:
    """The class; runs the file's code.

    Raises:
        ValueError: the file is missing or does not run, or holds no such network.
    """
    module, class_name = run(name, "ClassName")
    network = getattr(module, class_name, None)
    if network is None:
        own = [
            key
            for key, value in vars(module).items()
            if _is_network(value) and value.__module__ == module.__name__
        ]
        listing = f"It defines {', '.join(own)}." if own else "It defines no torch.nn.Module."
        raise ValueError(
            f"{name}: the file has no class {class_name!r}{suggestion(class_name, own)} {listing}"
        )
    if not _is_network(network):
        raise ValueError(f"{name}: {class_name} is no subclass of torch.nn.Module.")
    assert isinstance(network, type)
    return network


def run(name: str, member: str) -> tuple[ModuleType, str]:
    """Run the file of a plug-in; its module, and the word after the colon.

    Args:
        name: `path/to/file.py:word`.
        member: what the word is, for the message where it is missing.

    Raises:
        ValueError: the file is missing or does not run.
    """
    if name.endswith(".py"):
        raise ValueError(f"{name} says only the file: write {name}:{member}.")
    path, _, word = name.rpartition(":")
    file = Path(path).expanduser().resolve()
    if not file.is_file():
        raise ValueError(f"{name}: there is no file {file}.")
    return _run(name, file), word


def source_sha256(name: str) -> str | None:
    """SHA-256 of the code of a network that is none of ours; None for any other name.

    It is that of a plug-in's file, or of the lines of a network that a program has registered.

    Raises:
        ValueError: a registered network has no lines that could be read.
    """
    if is_plugin(name):
        source: bytes | None = Path(name.rpartition(":")[0]).expanduser().read_bytes()
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


def _run(name: str, file: Path) -> ModuleType:
    """The file as a module under a name of its own, so that it can hide no other module."""
    module_name = f"lockstep_plugin_{hashlib.sha256(str(file).encode()).hexdigest()[:16]}"
    spec = importlib.util.spec_from_file_location(module_name, file)
    assert spec is not None and spec.loader is not None  # the suffix is .py
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module  # dataclasses and pickle look their module up there
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[module_name]
        raise ValueError(f"{name} does not run: {describe(error, str(file))}") from error
    return module


def _is_network(value: object) -> bool:
    return isinstance(value, type) and issubclass(value, nn.Module)
