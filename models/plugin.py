"""A network of the user's own, from `path/to/file.py:ClassName`."""

from __future__ import annotations

import hashlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

from torch import nn

from models.construct import describe
from models.registry import suggestion


def is_plugin(name: str) -> bool:
    """Whether the name is meant as a file and a class in it."""
    return name.rpartition(":")[0].endswith(".py") or name.endswith(".py")


def load(name: str) -> type[nn.Module]:
    """The class; runs the file's code.

    Raises:
        ValueError: the file is missing or does not run, or holds no such network.
    """
    if name.endswith(".py"):
        raise ValueError(f"{name} says no class: write {name}:ClassName.")
    path, _, class_name = name.rpartition(":")
    file = Path(path).expanduser().resolve()
    if not file.is_file():
        raise ValueError(f"{name}: there is no file {file}.")
    module = _run(name, file)
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


def source_sha256(name: str) -> str | None:
    """SHA-256 of the file of a plug-in that can be loaded; None for any other name."""
    if not is_plugin(name):
        return None
    path = Path(name.rpartition(":")[0]).expanduser()
    return hashlib.sha256(path.read_bytes()).hexdigest()


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
