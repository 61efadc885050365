"""Calling a network's constructor with a user's arguments and what the data determine."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Mapping
from pathlib import Path
from traceback import extract_tb
from typing import Any

from torch import nn

from models.registry import suggestion


def construct(
    name: str, network: type[nn.Module], arguments: Mapping[str, Any], data: Mapping[str, Any]
) -> nn.Module:
    """Build the network from `arguments` and from those of `data` that its constructor takes.

    Raises:
        ValueError: an argument is unknown, missing, refused by the constructor, or set by the data.
    """
    taken, takes_any = _parameters(network)
    for key in arguments:
        if key in data:
            raise ValueError(f"{name} gets {key} = {data[key]} from the data: leave it out.")
        if key not in taken and not takes_any:
            accepted = [parameter for parameter in taken if parameter not in data]
            listing = f"It takes {', '.join(accepted)}." if accepted else "It takes none."
            raise ValueError(
                f"{name} has no argument {key!r}{suggestion(str(key), accepted)} {listing}"
            )
    passed = {key: value for key, value in data.items() if takes_any or key in taken}
    passed |= arguments
    required = [key for key, parameter in taken.items() if parameter.default is parameter.empty]
    missing = [key for key in required if key not in passed]
    if missing:
        raise ValueError(f"{name} needs a value for {', '.join(missing)}.")
    try:
        return network(**passed)
    except ValueError as error:  # its own check of a value
        raise ValueError(f"{name}: {error}") from error
    except Exception as error:
        raise ValueError(f"{name} cannot be built: {describe(error, file_of(network))}") from error


def file_of(network: type[nn.Module]) -> str | None:
    """The file that defines the class, if it has one."""
    return getattr(sys.modules.get(network.__module__), "__file__", None)


def describe(error: Exception, file: str | None) -> str:
    """Kind and message of an error, and the innermost line of the file that took part in it."""
    text = f"{type(error).__name__}: {error}"
    lines = [frame.lineno for frame in extract_tb(error.__traceback__) if frame.filename == file]
    return f"{text} ({Path(str(file)).name}, line {lines[-1]})" if lines else text


def _parameters(network: type[nn.Module]) -> tuple[dict[str, inspect.Parameter], bool]:
    """The constructor's keyword parameters, and whether it takes any other keyword."""
    if network.__init__ is nn.Module.__init__:
        return {}, False  # Module's own **kwargs are there to be refused.
    parameters = inspect.signature(network).parameters
    keywords = {
        key: parameter
        for key, parameter in parameters.items()
        if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
    }
    takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    return keywords, takes_any
