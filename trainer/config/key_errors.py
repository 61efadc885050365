"""Write the messages about a wrong key, or about a value of a wrong type, in one line each."""

from __future__ import annotations

import difflib
import functools
import re
import types
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from trainer.base.errors import UserError
from trainer.config.schema import RunConfig, flatten

_WORDS: dict[Any, str] = {
    type(None): "null",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "a text",
    list[int]: "a list of whole numbers",
    list[float]: "a list of numbers",
    list[str]: "a list of texts",
    dict[str, Any]: "keys and values such as '{widths: [8, 16]}'",
}
_ONE_WORD = "a list is one word without blanks, or in quotes: '[64, 64]'"
_RULES = {
    "data.augment": "none, names joined by _ such as flip_shift, or a list such as "
    "'[flip, {rotate: {degrees: 10}}]'",
    "data.image_size": "null, one number for a square, or height and width such as [64, 64]",
    "data.train_size": "null (all) or a whole number of images",
    "data.test_size": "null (all) or a whole number of images",
    "data.validation_size": "null (10 %, or all), 0 (none) or a whole number of images",
}


def explain_parser_error(message: str) -> str:
    """Return the parser's message in one line, with what would be right.

    For an unknown key that is the nearest one, for a wrong value what its type is.
    """
    message = re.sub(r"\s*\n\s*", " ", message).strip()
    if message.startswith("Unexpected config:"):
        return "has no keys; a recipe is YAML such as `seed: 0`"
    message = re.sub(r'^Parser key "([^"]+)":', r"\1:", message)
    key, _, problem = message.partition(": ")
    known = list(flatten(RunConfig()))
    if key in known and problem.startswith(("Does not validate", "Expected a")):
        found = re.search("Given value:(.*)$", problem) or re.search("Got value:(.*)$", problem)
        words = found[1].strip() if found else ""
        return wrong_type(key, "null" if words == "None" else words)
    if problem and any(name.startswith(f"{key}.") for name in known):
        return section_expected(key)
    if re.fullmatch(r"[Uu]nrecognized arguments: [\d.\[\](),x\s]+", message):
        return f"{message}; {_ONE_WORD}"
    return message + _nearest_key(message, known)


def section_expected(name: str) -> str:
    """Return the message about a section that has a value."""
    return f"{name}: must be a section, which has keys with their values, and not a value"


def wrong_type(key: str, found: str) -> str:
    """Return the message about a value of a wrong type.

    Args:
        found: the value in words; may be empty.
    """
    hints = hints_of(key)
    rule = _RULES.get(key) or " or ".join(map(_in_words, hints))
    return f"{key}: must be {rule}, found {found or 'nothing'}{_proposal(key, found, hints)}"


def unknown_key(key: str) -> str:
    """Return the message about a dotted key that no configuration has."""
    known = list(flatten(RunConfig()))
    if any(name.startswith(f"{key}.") for name in known):
        return f"{key}: is a section; write its keys in dotted form, such as {_first(key, known)}"
    return f"{key}: is no key of a configuration{_nearest(key, known)}"


def check_not_null(config: RunConfig) -> None:
    """Make sure that no key is null that may not be, as the parser takes null for any key.

    Raises:
        UserError: names the first key that is null and may not be.
    """
    for key, value in flatten(config).items():
        if value is None and type(None) not in hints_of(key):
            raise UserError(wrong_type(key, "null"))


def hints_of(key: str) -> tuple[Any, ...]:
    """Return the types that a key's value may have, null first."""
    section, _, name = key.rpartition(".")
    owner = _hints_of(RunConfig)[section] if section else RunConfig
    hint = _hints_of(owner)[name]
    if get_origin(hint) not in (Union, types.UnionType):
        return (hint,)
    return tuple(sorted(get_args(hint), key=lambda one: one is not type(None)))


@functools.cache
def _hints_of(owner: type) -> dict[str, Any]:
    return get_type_hints(owner)


def _in_words(hint: Any) -> str:
    if get_origin(hint) is Literal:
        *others, last = get_args(hint)
        return f"{', '.join(others)} or {last}" if others else str(last)
    if hint not in _WORDS:
        return f"a list of {_in_words(*get_args(hint))}"
    return _WORDS[hint]


def _proposal(key: str, found: str, hints: tuple[Any, ...]) -> str:
    """Return the end of a message: what may have been meant."""
    if key.endswith("_size") and re.fullmatch(r"0?\.\d+|[\d.]+\s*%", found):
        return "; it is a number of images, not a share of them"
    whole = re.sub(r"(?<=\d)[,_](?=\d{3}\b)", "", found)
    if int in hints and re.fullmatch(r"(?:\d+\.?\d*|\.\d+)(?:e\+?\d+)?", whole):
        return f"; write {int(float(whole))}" if float(whole).is_integer() else ""
    if any(get_origin(hint) is list for hint in hints):
        if found[:1] in ("[", "(") and found[-1] not in "])":
            return f"; {_ONE_WORD}"
        names = {name for hint in hints for item in get_args(hint) for name in get_args(item)}
        words = re.split(r"[\s,;]+" if names else r"[\s,;x*]+", found.strip("[]() "))
        if all(word in names or re.fullmatch(r"\d+", word) for word in words):
            return f"; write '[{', '.join(words)}]'"
    return ""


def _nearest_key(message: str, known: list[str]) -> str:
    for key in re.findall(r"--([\w.]+)|[oO]ption '(\w+)'", message):
        if proposal := _nearest(key[0] or key[1], known):
            return proposal
    return ""


def _nearest(wrong: str, known: list[str]) -> str:
    nearest = difflib.get_close_matches(wrong, known, 1) or [
        name for name in known if difflib.get_close_matches(wrong, [name.split(".")[-1]], 1)
    ]
    return f"; did you mean {nearest[0]}?" if nearest and wrong not in known else ""


def _first(section: str, known: list[str]) -> str:
    return next(name for name in known if name.startswith(f"{section}."))
