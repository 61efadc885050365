"""The registered networks, by name."""

from __future__ import annotations

from collections.abc import Callable
from difflib import get_close_matches
from typing import TypeVar

from torch import nn

Network = TypeVar("Network", bound=nn.Module)

_networks: dict[str, type[nn.Module]] = {}


def register(name: str) -> Callable[[type[Network]], type[Network]]:
    """Class decorator that makes the network known under `name`.

    Raises:
        ValueError: the name is one of this package's networks.
    """
    if name in _networks and not is_own(name):
        raise ValueError(f"{name!r} is one of Lockstep's own; choose another name")

    def add(network: type[Network]) -> type[Network]:
        _networks[name] = network
        return network

    return add


def names() -> list[str]:
    """The registered names in alphabetical order."""
    return sorted(_networks)


def is_own(name: str) -> bool:
    """Whether the name was registered from outside of this package."""
    return name in _networks and not _networks[name].__module__.startswith("models.")


def find(name: str) -> type[nn.Module]:
    """The network registered under `name`; ValueError lists the registered names."""
    if name not in _networks:
        raise ValueError(
            f"no model is called {name!r}{suggestion(name, names())} "
            f"Registered are {', '.join(names())}; your own is path/to/file.py:ClassName, "
            f"one of timm's is timm:NAME."
        )
    return _networks[name]


def suggestion(found: str, known: list[str]) -> str:
    """How a sentence on something unknown ends: with the nearest known words, if any is near."""
    close = get_close_matches(found, known)
    return f"; did you mean {' or '.join(close)}?" if close else "."
