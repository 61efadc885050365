"""Read small files, and check that values are of the expected types.

Whatever is wrong with a file becomes a `UserError` that names it.
"""

from __future__ import annotations

import json
import math
import types
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

from trainer.base.errors import UnreadableError, UserError

_LONGEST_SHOWN = 60


def read_text(path: Path) -> str:
    """Return the text of a file in UTF-8.

    Raises:
        UserError: it is missing, may not be read, or is not UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8")
    except PermissionError as error:
        raise UnreadableError(f"{path}: may not be read ({error_text(error)})") from error
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: missing or damaged ({error_text(error)})") from error


def read_json(path: Path) -> dict[str, Any]:
    """Return the object in a JSON file.

    Raises:
        UserError: as `read_text` and `parse_json`; or it is not an object.
    """
    found: dict[str, Any] = parse_json(read_text(path), path)
    check_type(found, dict[str, Any], str(path))
    return found


def parse_json(text: str, path: Path) -> Any:
    """Return the value of a JSON text.

    Raises:
        UserError: names `path`, where the text comes from.
    """
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: damaged, not JSON that Lockstep writes ({error})") from error


def nan_to_null(value: Any) -> Any:
    """Return a value with null for the numbers in it that JSON has no word for."""
    if isinstance(value, dict):
        return {key: nan_to_null(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [nan_to_null(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def check_type(value: Any, hint: Any, where: str) -> None:
    """Make sure that a value read from JSON or YAML has a type, given as an annotation.

    Raises:
        UserError: says where, what it must be and what was found.
    """
    if not _matches(value, hint):
        name = hint.__name__ if isinstance(hint, type) and not get_args(hint) else str(hint)
        raise UserError(f"{where}: must be {name}, found {describe_value(value)}")


def describe_value(value: Any) -> str:
    """Return a value as a message shows it, however long or strange it is."""
    try:
        return ascii(value[:_LONGEST_SHOWN] if isinstance(value, str) else value)[:_LONGEST_SHOWN]
    except RecursionError:
        return "something nested deeply"


def error_text(error: Exception) -> str:
    """Return the words of an error, without the path that the message names already."""
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
