"""The networks of this package, by name."""

from __future__ import annotations

from collections.abc import Callable
from difflib import get_close_matches
from typing import TypeVar

from torch import nn

Network = TypeVar("Network", bound=nn.Module)

_networks: dict[str, type[nn.Module]] = {}


def register(name: str) -> Callable[[type[Network]], type[Network]]:
    """Return a class decorator that registers a network of this package under `name`."""

    def add(network: type[Network]) -> type[Network]:
        _networks[name] = network
        return network

    return add


def names() -> list[str]:
    """Return the registered names in alphabetical order."""
    return sorted(_networks)


def find(name: str) -> type[nn.Module]:
    """Return the network registered under `name`; ValueError lists the registered names."""
    if name not in _networks:
        raise ValueError(
            f"no model is called {name!r}{suggestion(name, names())} "
            f"Registered are {', '.join(names())}; your own is path/to/file.py:ClassName, "
            f"one of timm's is timm:NAME."
        )
    return _networks[name]


def suggestion(found: str, known: list[str]) -> str:
    """Return the end of a sentence on an unknown word: the nearest known ones, if any is near."""
    close = get_close_matches(found, known)
    return f"; did you mean {' or '.join(close)}?" if close else "."
