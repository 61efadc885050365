"""Reading small files that nobody vouches for: bounded, strict, and of the types that are expected.

Whatever is wrong with a file becomes a `UserError` that names it. Links are not followed, so that
the files of a folder that somebody sent cannot lead out of it.
"""

from __future__ import annotations

import json
import math
import types
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

from trainer.base.errors import UnreadableError, UserError
from trainer.base.files import open_regular

LARGEST_BYTES = 4 * 2**20
"""of a JSON file: parsed, it can take some twenty times as much memory"""
_LONGEST_SHOWN = 60


def read_text(path: Path, limit_bytes: int = LARGEST_BYTES) -> str:
    """The text of a regular file in UTF-8.

    Raises:
        UserError: it is missing, no regular file, longer than the limit, or no UTF-8.
    """
    try:
        with open_regular(path) as file:
            content = file.read(limit_bytes + 1)
        if len(content) > limit_bytes:
            raise ValueError(f"longer than the {limit_bytes} bytes that it may have")
        return content.decode("utf-8")
    except PermissionError as error:
        raise UnreadableError(f"{path}: may not be read ({error_text(error)})") from error
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: missing or damaged ({error_text(error)})") from error


def read_json(path: Path, limit_bytes: int = LARGEST_BYTES) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
        UserError: as `read_text` and `parse_json`; or it is no object.
    """
    found: dict[str, Any] = parse_json(read_text(path, limit_bytes), path)
    check_type(found, dict[str, Any], str(path))
    return found


def parse_json(text: str, path: Path) -> Any:
    """The value of a JSON text: no NaN or infinity, and whole numbers of 64 bits.

    Raises:
        UserError: names `path`, where the text comes from.
    """
    try:
        return json.loads(text, parse_constant=_no_number, parse_float=_finite, parse_int=_whole)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: damaged, no JSON that Lockstep writes ({error})") from error


def check_type(value: Any, hint: Any, where: str) -> None:
    """Make sure that a value read from JSON or YAML is of a type, given as an annotation.

    Raises:
        UserError: says where, what it must be and what was found.
    """
    if not _matches(value, hint):
        name = hint.__name__ if isinstance(hint, type) and not get_args(hint) else str(hint)
        raise UserError(f"{where}: must be {name}, found {describe_value(value)}")


def describe_value(value: Any) -> str:
    """A value for a message, however long or strange it is."""
    try:
        return ascii(value[:_LONGEST_SHOWN] if isinstance(value, str) else value)[:_LONGEST_SHOWN]
    except RecursionError:
        return "something nested deeply"


def error_text(error: Exception) -> str:
    """The words of an error, without the path that the message names already."""
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


def _matches(value: Any, hint: Any) -> bool:
    origin, inner = get_origin(hint), get_args(hint)
    if hint is Any:
        return True
    if origin is Literal:
        return isinstance(value, str) and value in inner
    if origin in (Union, types.UnionType):
        return any(_matches(value, one) for one in inner)
    if origin is list:
        return isinstance(value, list) and all(_matches(item, inner[0]) for item in value)
    if origin is dict:
        return isinstance(value, dict) and all(
            _matches(key, inner[0]) and _matches(item, inner[1]) for key, item in value.items()
        )
    if hint in (int, float) and isinstance(value, bool):
        return False
    return isinstance(value, (int, float) if hint is float else hint)


def _no_number(name: str) -> float:
    raise ValueError(f"{name} is no number of JSON")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError("a number is too large")
    return value


def _whole(text: str) -> int:
    value = int(text)
    if not -(2**63) <= value < 2**63:
        raise ValueError("a whole number is too large")
    return value
