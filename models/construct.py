"""Call a network's constructor with the user's arguments and what the data determine."""

from __future__ import annotations

import inspect
import sysconfig
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from traceback import extract_tb
from typing import Any

from torch import nn

from models.registry import suggestion

_OURS = Path(__file__).resolve().parent
_STANDARD = {Path(sysconfig.get_path(name)).resolve() for name in ("stdlib", "platstdlib")}
_INSTALLED = {_OURS, _OURS.with_name("trainer"), *_STANDARD}
_SITE_PACKAGES = {"site-packages", "dist-packages"}


def construct(
    name: str, network: Callable[..., Any], arguments: Mapping[str, Any], data: Mapping[str, Any]
) -> nn.Module:
    """Build the network from `arguments` and from those of `data` that its constructor takes.

    Args:
        network: a class, or a function that returns a network.
        data: what the data determine.

    Raises:
        ValueError: as `check_arguments`; or the constructor refuses an argument, or returns
            something else than a network.
    """
    wanted = check_arguments(name, network, arguments, data)
    try:
        built: object = network(**{key: data[key] for key in wanted}, **arguments)
    except ValueError as error:  # its own check of a value
        raise ValueError(f"{name}: {describe(error, kind=False)}") from error
    except (Exception, SystemExit) as error:
        raise ValueError(f"{name} cannot be built: {describe(error)}") from error
    if not isinstance(built, nn.Module):
        kind = type(built).__name__
        raise ValueError(f"{name} returns a {kind}, where a torch.nn.Module must be.")
    return built


def check_arguments(
    name: str, network: Callable[..., Any], arguments: Mapping[str, Any], data: Iterable[str]
) -> list[str]:
    """Return which of the names that the data determine a constructor takes; calls nothing.

    Raises:
        ValueError: an argument is unknown, missing, or set by the data.
    """
    try:
        taken, takes_any = _parameters(network)
    except (ValueError, TypeError) as error:  # of a function without a signature
        raise ValueError(f"{name}: nothing says what it takes ({error}).") from error
    determined = list(data)
    for key in arguments:
        if key in determined:
            raise ValueError(f"{name} gets {key} from the data: leave it out.")
        if key not in taken and not takes_any:
            accepted = [parameter for parameter in taken if parameter not in determined]
            listing = f"It takes {', '.join(accepted)}." if accepted else "It takes none."
            raise ValueError(
                f"{name} has no argument {key!r}{suggestion(str(key), accepted)} {listing}"
            )
    required = [key for key, parameter in taken.items() if parameter.default is parameter.empty]
    missing = [key for key in required if key not in determined and key not in arguments]
    if missing:
        raise ValueError(f"{name} needs a value for {', '.join(missing)}.")
    return [key for key in determined if takes_any or key in taken]


def describe(error: BaseException, *, kind: bool = True) -> str:
    """Return kind and message of an error, and the user's line in which it came up.

    Args:
        kind: whether to say of what kind the error is.
    """
    words = " ".join(str(error).split())
    text = f"{type(error).__name__}: {words}" if kind or not words else words
    place = place_of(error)
    return f"{text} ({place})" if place else text


def place_of(error: BaseException) -> str | None:
    """Return file and line of the user's code in which an error came up; None: it came up in ours.

    It is the innermost such line from where the error was caught.
    """
    for frame in reversed(extract_tb(error.__traceback__)):
        if is_user_file(frame.filename):
            return f"{Path(frame.filename).name}, line {frame.lineno}"
    return None


def is_user_file(name: str) -> bool:
    """Return whether a file is of neither Python, an installed package nor Lockstep."""
    path = Path(name).resolve()
    return (
        path.is_file()
        and _INSTALLED.isdisjoint(path.parents)
        and _SITE_PACKAGES.isdisjoint(path.parts)
    )


def _parameters(network: Callable[..., Any]) -> tuple[dict[str, inspect.Parameter], bool]:
    """Return the constructor's keyword parameters, and whether it takes any other keyword."""
    if getattr(network, "__init__", None) is nn.Module.__init__:
        return {}, False  # Module's own **kwargs are there to be refused.
    parameters = inspect.signature(network).parameters
    keywords = {
        key: parameter
        for key, parameter in parameters.items()
        if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
    }
    takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    return keywords, takes_any
