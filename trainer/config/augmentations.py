"""The transforms of a list in `data.augment`: their names, arguments, defaults and ranges.

What they do to pixels is in `trainer.data.augment`. Sizes are shares of the image's sides.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches
from math import isfinite
from typing import Any

from trainer.base.errors import UserError

Arguments = dict[str, Any]

TRANSFORMS = ("flip", "rotate", "crop", "shift", "cutout", "erase")
"""of the short form of data.augment, in the order in which they are applied"""


@dataclass(frozen=True)
class Argument:
    """An argument of a transform."""

    default: Any
    rule: str
    """what is right, in words that follow `must be`"""
    meaning: str
    read: Callable[[Any], Any]
    """returns the value in its one spelling, or None if it is wrong"""


def _number(default: float, least: float, most: float, meaning: str) -> Argument:
    def read(value: Any) -> float | None:
        return float(value) if _is_number(value) and least <= value <= most else None

    return Argument(default, f"a number from {least:g} to {most:g}", meaning, read)


def _whole(default: int, least: int, most: int, meaning: str) -> Argument:
    def read(value: Any) -> int | None:
        is_right = _is_number(value) and value == int(value) and least <= value <= most
        return int(value) if is_right else None

    return Argument(default, f"a whole number from {least} to {most}", meaning, read)


def _range(default: list[float], least: float, most: float, meaning: str) -> Argument:
    def read(value: Any) -> list[float] | None:
        if not isinstance(value, list) or len(value) != 2 or not all(map(_is_number, value)):
            return None
        low, high = map(float, value)
        return [low, high] if least <= low <= high <= most else None

    rule = f"two numbers from {least:g} to {most:g}, the lower first, such as {default}"
    return Argument(default, rule, meaning, read)


def _choice(words: list[str], meaning: str) -> Argument:
    """Return one of some words, the first of which is the default."""

    def read(value: Any) -> str | None:
        return value if isinstance(value, str) and value in words else None

    return Argument(words[0], " or ".join(words), meaning, read)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and isfinite(value)


def _probability(default: float) -> Argument:
    return _number(default, 0, 1, "share of the images that it changes")


TRANSFORMS_OF_LISTS: dict[str, dict[str, Argument]] = {
    "random_resized_crop": {
        "area": _range([0.08, 1.0], 0.01, 1, "of the box, as a share of the picture"),
        "aspect": _number(4 / 3, 1, 10, "the box is at most this many times as wide as high"),
    },
    "crop": {
        "area": _range([0.6, 1.0], 0.01, 1, "of the part, as a share of the image"),
        "aspect": _number(4 / 3, 1, 10, "of the part against the image's own, at most"),
    },
    "flip": {"probability": _probability(0.5)},
    "vertical_flip": {"probability": _probability(0.5)},
    "alternating_flip": {},
    "shift": {
        "fraction": _number(0.0625, 0, 0.5, "of the side, the farthest, down and across"),
        "fill": _choice(["reflect", "black"], "what comes in from outside"),
    },
    "rotate": {"degrees": _number(15.0, 0, 180, "the largest angle, to both sides")},
    "colour_jitter": {
        "brightness": _number(0.4, 0, 1, "a factor of 1 plus or minus at most this"),
        "contrast": _number(0.4, 0, 1, "likewise, around the image's mean"),
        "saturation": _number(0.4, 0, 1, "likewise, around each pixel's grey"),
        "hue": _number(0.1, 0, 0.5, "the farthest turn of the colours, in whole turns"),
    },
    "grey": {"probability": _probability(0.2)},
    "blur": {
        "sigma": _range([0.0005, 0.01], 0, 0.1, "of the Gaussian, in shares of the shorter side"),
        "probability": _probability(0.5),
    },
    "trivial_augment_wide": {
        "magnitude": _number(1.0, 0, 1, "share of the paper's ranges that is used")
    },
    "rand_augment": {
        "operations": _whole(2, 1, 10, "for each image, one after the other"),
        "magnitude": _number(9.0, 0, 30, "of 30"),
    },
    "aug_mix": {
        "severity": _number(3.0, 0.1, 10, "the largest strength, of 10"),
        "width": _whole(3, 1, 10, "chains that are mixed"),
        "depth": _whole(3, 1, 10, "the most operations of a chain"),
    },
    "cutout": {"side": _number(0.25, 0, 1, "of the black box, as a share of the image's sides")},
    "erase": {
        "probability": _probability(0.25),
        "area": _range([0.02, 0.33], 0, 1, "of the rectangle, as a share of the image"),
        "aspect": _number(3.3, 1, 10, "the rectangle is at most this many times as high as wide"),
        "noise": _choice(["channel", "pixel"], "one random level for each channel, or pixel"),
    },
}
"""the arguments of each, in the order in which they are written"""

ALL_TRANSFORMS = tuple(dict.fromkeys((*TRANSFORMS, *TRANSFORMS_OF_LISTS)))
"""of the short form and of lists"""


def split_entry(entry: Any, key: str) -> tuple[str, Arguments]:
    """Return the name and the given arguments of an entry of the list.

    Args:
        key: of the entry, for messages.

    Raises:
        UserError: it is neither a name nor a name with arguments.
    """
    if isinstance(entry, str):
        return entry, {}
    if isinstance(entry, dict) and len(entry) == 1:
        ((name, arguments),) = entry.items()
        if isinstance(name, str) and isinstance(arguments, dict):
            return name, arguments
    raise UserError(
        f"{key}: must be a name, or one name with its arguments such as "
        f"{{rotate: {{degrees: 10}}}}, found {entry!r}"
    )


def complete(entry: Any, key: str) -> tuple[str, Arguments]:
    """Return the name of an entry and all of its arguments, in their one spelling.

    A name that is none of ours may be a user's function, which has no arguments here.

    Raises:
        UserError: names the argument that is unknown or wrong, and says what would be right.
    """
    name, given = split_entry(entry, key)
    known = TRANSFORMS_OF_LISTS.get(name)
    if known is None:
        if given:
            raise UserError(_unknown(name, key) + "; only they have arguments")
        if name == "none":
            raise UserError(f"{key}: none stands alone, without a list")
        return name, {}
    for word in given:
        if word not in known:
            close = get_close_matches(str(word), known)
            nearest = f"did you mean {close[0]}?" if close else f"it has {', '.join(known)}"
            raise UserError(
                f"{key}.{name}: has no argument {word!r}; {nearest if known else 'it has none'}"
            )
    values = {}
    for word, argument in known.items():
        found = given.get(word, argument.default)
        values[word] = argument.read(found)
        if values[word] is None:
            raise UserError(f"{key}.{name}.{word}: must be {argument.rule}, found {found!r}")
    return name, values


def check_list(entries: list[Any]) -> None:
    """Make sure that every entry is right by itself, and in its place.

    Raises:
        UserError: names the entry by its place, from 0.
    """
    for place, entry in enumerate(entries):
        key = f"data.augment[{place}]"
        name, _ = complete(entry, key)
        if name == "random_resized_crop" and place:
            raise UserError(
                f"{key}: random_resized_crop must be first in the list, as it cuts a box out of "
                f"the original picture"
            )


def canonical(policy: str | list[Any]) -> str | list[Any]:
    """Return a policy in its one spelling, so that it is one run however it is written.

    In a list each of our transforms has all of its arguments, and no list is `none`. What is wrong
    stays as it is, for `check_list` to refuse.
    """
    if isinstance(policy, str):
        return policy
    entries = []
    for entry in policy:
        try:
            name, arguments = complete(entry, "")
        except UserError:
            entries.append(entry)
        else:
            entries.append({name: arguments} if arguments else name)
    return entries or "none"


def unknown_name_message(entries: list[Any], name: str) -> str:
    """Return the message about an entry whose name is neither ours nor a known user's."""
    names = names_in(entries)
    key = f"data.augment[{names.index(name)}]"
    return f"{_unknown(name, key)}; your own is path/to/file.py:name"


def _unknown(name: str, key: str) -> str:
    close = get_close_matches(name, TRANSFORMS_OF_LISTS)
    nearest = f"; did you mean {' or '.join(close)}?" if close else ";"
    known = ", ".join(TRANSFORMS_OF_LISTS)
    return f"{key}: there is no augmentation {name!r}{nearest} known are {known}"


def names_in(entries: list[Any]) -> list[str]:
    """Return the names of the entries of a list.

    Raises:
        UserError: one is neither a name nor a name with arguments.
    """
    return [split_entry(entry, "data.augment")[0] for entry in entries]


def transforms_of(policy: str) -> list[str]:
    """Return the names of Lockstep's transforms in the short form of `data.augment`."""
    first = policy.partition("+")[0].split("_")
    return first if set(first) <= set(TRANSFORMS) else []


def own_augmentations_of(policy: str | list[Any]) -> list[str]:
    """Return the names of users' augmentations in a value of `data.augment`."""
    if isinstance(policy, list):
        return [name for name in names_in(policy) if name not in TRANSFORMS_OF_LISTS]
    parts = policy.split("+")
    return [] if policy == "none" else parts[bool(transforms_of(policy)) :]
