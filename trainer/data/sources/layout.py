"""Tell parts and classes from the names of picture files: PART/CLASS/..., or CLASS/... alone.

The rules are the same for a folder and for an archive.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from trainer.base.errors import UserError
from trainer.base.terminal import printable
from trainer.data.pictures.decoding import SUFFIXES
from trainer.data.pictures.names import (
    PARTS,
    describe,
    guess_part,
    is_picture,
    join_some,
    normalize_class_name,
)
from trainer.data.pictures.packed_names import pack
from trainer.data.pictures.picture_set import ListedPictures
from trainer.data.sources.members import Members

_ENDINGS = ", ".join(SUFFIXES)


@dataclass(frozen=True)
class Layout:
    """The pictures of some members, sorted by class, then by name.

    Args:
        class_names: sorted.
        parts: train, validation and test, as far as they are there, in this order.
        is_flat: whether the classes lie in the root, without folders of parts.
        warnings: what was left out.
    """

    class_names: tuple[str, ...]
    parts: Mapping[str, ListedPictures]
    is_flat: bool
    warnings: tuple[str, ...]


@dataclass
class _Class:
    """The folder of a class: its name, and its files by their positions among the members."""

    folder: str
    pictures: list[int] = field(default_factory=list)
    others: list[int] = field(default_factory=list)


def read_layout(members: Members) -> Layout:
    """Find the parts and the classes.

    A folder below that of a class belongs to the class. An archive whose files all lie in one
    folder is read as if it were that folder. Without folders of parts, the folders in the root are
    classes, and all of their pictures are training pictures.

    Raises:
        UserError: the layout is another one.
    """
    top = top_folder(members)
    parts, ignored = _find_parts(members, top)
    prefixes = {part: f"{top}{part}/" for part in parts} or {"train": top}
    found = {part: _find_classes(members, prefix) for part, prefix in prefixes.items()}
    class_names = _common_classes(members, prefixes, found)
    for classes in found.values():
        for name in class_names:
            if not classes[name].pictures:
                where = members.describe(classes[name].folder)
                raise UserError(f"data.root: {where} has no pictures; they end in {_ENDINGS}")
    others = [
        members.names[number]
        for part in found.values()
        for name in class_names
        for number in part[name].others
    ]
    return Layout(
        class_names,
        {part: _label(members, [of[name] for name in class_names]) for part, of in found.items()},
        not parts,
        (
            *_left_out(f"end in none of {_ENDINGS}", others),
            *_left_out(f"are in none of the folders {', '.join(PARTS)}", ignored),
        ),
    )


def read_part(members: Members, part: str) -> Layout:
    """Find the classes of only one part, any of them; the root itself is it where it has no parts.

    Raises:
        UserError: there are no pictures, or the layout is another one.
    """
    top = top_folder(members)
    prefix = f"{top}{part}/" if f"{top}{part}" in members.folders else top
    found = _find_classes(members, prefix)
    class_names = tuple(sorted(name for name, one in found.items() if one.pictures))
    if not class_names:
        raise UserError(
            f"data.root: {members.describe(prefix[:-1])} has no pictures; they must lie in a "
            f"folder for each class, and end in {_ENDINGS}"
        )
    others = [members.names[number] for name in sorted(found) for number in found[name].others]
    return Layout(
        class_names,
        {part: _label(members, [found[name] for name in class_names])},
        prefix == top,
        tuple(_left_out(f"end in none of {_ENDINGS}", others)),
    )


def has_part(members: Members, part: str) -> bool:
    """Return whether there is a part that `read_part` can read."""
    inside = _children(members.folders, top_folder(members))
    return part in inside or (part == "test" and is_flat(members))


def is_flat(members: Members) -> bool:
    """Return whether the classes lie in the root: no folder in it is named like a part."""
    return not any(map(guess_part, _children(members.folders, top_folder(members))))


def top_folder(members: Members) -> str:
    """Return the folder that all pictures of an archive lie in, with a slash; "" if there is none.

    A part is not one, and neither is a class, which has pictures of its own. Other files, such as
    a README, may lie beside it.
    """
    inside = _children(members.folders, "")
    if not members.is_archive or len(inside) != 1 or guess_part(inside[0]):
        return ""
    top = f"{inside[0]}/"
    for name in members.names:
        if is_picture(name) and "/" not in name.removeprefix(top):
            return ""
    return top


def _find_parts(members: Members, top: str) -> tuple[list[str], list[str]]:
    """Return the parts that are there, and the folders and pictures next to them."""
    inside = _children(members.folders, top)
    parts = [part for part in PARTS if part in inside]
    wrong = []
    for name in inside:
        part = guess_part(name)
        if part and name not in parts:
            advice = f"name it {part}"
            if part in parts:
                advice = f"move its pictures into {members.describe(top + part)}, or remove it"
            wrong.append(f"{members.describe(top + name)} would be ignored; {advice}")
    for name in members.broken_links:
        if "/" not in name and guess_part(name):
            raise _broken_link(members, name)
    if wrong:
        others = [name for name in inside if not guess_part(name)]
        hint = "; a class may have such a name in a folder train, with all other classes"
        raise UserError(f"data.root: {', and '.join(wrong)}{hint if others and not parts else ''}")
    if parts and "train" not in parts:
        raise UserError(
            f"data.root: {members.describe(top[:-1])} has no folder train; it must have "
            "train/CLASS/ with pictures of each class, and may have validation/CLASS/ and "
            f"test/CLASS/ (a class named {parts[0]} must lie in train, with all other classes)"
        )
    if not parts:
        return [], []
    loose = [name for name in _files_in(members, top) if is_picture(name)]
    return parts, sorted({*inside, *(name[len(top) :] for name in loose)} - {*parts})


def _find_classes(members: Members, prefix: str) -> dict[str, _Class]:
    """Return the folders in that of a part, by the names of their classes, with their files."""
    found: dict[str, _Class] = {}
    by_folder: dict[str, _Class] = {}
    for folder in _children(members.folders, prefix):
        _check_name(members, prefix + folder)
        name = normalize_class_name(folder)
        where = members.describe(prefix[:-1])
        if not name:
            raise UserError(
                f"data.root: {where} has a folder whose name is only spaces, {folder!r}; rename it"
            )
        if name in found:
            first = found[name].folder[len(prefix) :]
            raise UserError(
                f"data.root: {where} has two folders of the class {name}, {first!a} and "
                f"{folder!a}, which differ only in their Unicode form or in spaces; move the "
                "pictures into one of them"
            )
        found[name] = by_folder[folder] = _Class(prefix + folder)
    _sort_files(members, prefix, by_folder)
    return found


def _sort_files(members: Members, prefix: str, by_folder: Mapping[str, _Class]) -> None:
    """Put the files of a part into their classes, sorted by name."""
    begin, folder, last = len(prefix), "", _Class("")
    for number, name in enumerate(members.names):
        # Those of one class mostly come together.
        if not folder or not name.startswith(folder):
            if not name.startswith(prefix):
                continue
            end = name.find("/", begin)
            if end < 0:
                if name in members.broken_links:
                    raise _broken_link(members, name)
                if is_picture(name):
                    where = members.describe(name)
                    raise UserError(f"data.root: {where} is not in the folder of a class")
                continue
            folder, last = name[: end + 1], by_folder[name[begin:end]]
        (last.pictures if is_picture(name) else last.others).append(number)
        if not name.isascii():
            _check_name(members, name)
    for one in by_folder.values():
        for numbers in (one.pictures, one.others):
            numbers.sort(key=members.names.__getitem__)


def _common_classes(
    members: Members, prefixes: Mapping[str, str], found: Mapping[str, Mapping[str, _Class]]
) -> tuple[str, ...]:
    """Return the classes of train, which all parts must have, and no others."""
    names, train = found["train"].keys(), members.describe(prefixes["train"][:-1])
    for part, others in found.items():
        if others.keys() != names:
            lacking = ", ".join(map(describe, sorted(names - others.keys())))
            unknown = ", ".join(map(describe, sorted(others.keys() - names)))
            words = [f"lacks {lacking}"] * bool(lacking) + [f"has {unknown}"] * bool(unknown)
            raise UserError(
                f"data.root: {members.describe(prefixes[part][:-1])} {' and '.join(words)}, unlike "
                f"{train}; all parts must have the same classes"
            )
    if len(names) < 2:
        inner = _inner_folder(members, prefixes["train"])
        raise UserError(
            f"data.root: {train} must have at least 2 folders, one a class; found "
            f"{', '.join(names) or 'none'}"
            + (f"; all pictures lie in {members.describe(inner)}: is that meant?" if inner else "")
        )
    return tuple(sorted(names))


def _inner_folder(members: Members, prefix: str) -> str | None:
    """Return the folder further inside that all pictures lie in folders of; None: there is none."""
    pictures = [name for name in members.names if name.startswith(prefix) and is_picture(name)]
    if not pictures:
        return None
    common = posixpath.commonpath(map(posixpath.dirname, (min(pictures), max(pictures))))
    is_inside = len(common) >= len(prefix) and common
    has_folders = all("/" in name[len(common) + 1 :] for name in pictures)
    return common if is_inside and has_folders else None


def _label(members: Members, classes: Sequence[_Class]) -> ListedPictures:
    counts = [len(one.pictures) for one in classes]
    numbers = np.array([number for one in classes for number in one.pictures], dtype=np.int64)
    labels = np.repeat(np.arange(len(classes), dtype=np.int64), counts)
    places = members.places.select(numbers)
    return ListedPictures(replace(places, names=pack(places.names)), labels)


def _children(folders: frozenset[str], prefix: str) -> list[str]:
    """Return the names of the folders that lie directly in a folder, sorted."""
    inside = (name[len(prefix) :] for name in folders if name.startswith(prefix))
    return sorted(name for name in inside if name and "/" not in name)


def _files_in(members: Members, prefix: str) -> Iterator[str]:
    for name in members.names:
        if name.find("/", len(prefix)) < 0 and name.startswith(prefix):
            yield name


def _left_out(why: str, names: list[str]) -> list[str]:
    return [f"left out, as they {why}: {join_some([*map(printable, names)])}"] if names else []


def _broken_link(members: Members, name: str) -> UserError:
    """Refuse a broken link to a part or a class, which would otherwise be missing silently."""
    where = members.describe(name)
    return UserError(f"data.root: {where} is a link that leads nowhere; fix or remove it")


def _check_name(members: Members, name: str) -> None:
    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise UserError(
            f"data.root: {members.describe(name)!r} has a name that is not UTF-8; rename it"
        ) from error
