"""List the picture files of a folder, PART/CLASS/FILE, and say what is wrong with its layout."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from trainer.base.errors import UserError
from trainer.data.pictures.decoding import SUFFIXES
from trainer.data.pictures.file_states import state_of
from trainer.data.pictures.names import (
    PARTS,
    describe,
    guess_part,
    is_ignored,
    is_picture,
    join_some,
    normalize_class_name,
)
from trainer.data.pictures.packed_names import pack
from trainer.data.pictures.picture_set import ListedPictures
from trainer.data.pictures.places import Places
from trainer.data.sources.picture_plan import PictureList

_ENDINGS = ", ".join(SUFFIXES)


def list_pictures(root: Path) -> PictureList:
    """List the pictures of all parts; hidden files are left out, links are followed.

    Raises:
        UserError: the folder is not laid out as it should be.
    """
    if not root.is_dir():
        raise UserError(f"data.root: there is no folder {root}")
    parts, ignored = _find_parts(root)
    folders = {part: _class_folders(root / part) for part in parts}
    class_names = _common_classes(root, folders)
    found = {
        part: [_list_class(root, of_part[name]) for name in class_names]
        for part, of_part in folders.items()
    }
    for part, classes in found.items():
        for name, (pictures, _, _) in zip(class_names, classes, strict=True):
            if not pictures:
                raise UserError(
                    f"data.root: {folders[part][name]} has no pictures; they end in {_ENDINGS}"
                )
    others = [name for classes in found.values() for _, _, names in classes for name in names]
    return PictureList(
        root=root,
        class_names=class_names,
        parts={part: _label(root, classes) for part, classes in found.items()},
        makes_test="test" not in parts,
        warnings=(
            *_left_out(f"end in none of {_ENDINGS}", others),
            *_left_out(f"are in none of the folders {', '.join(PARTS)}", ignored),
        ),
    )


def has_part(root: Path, part: str) -> bool:
    """Return whether a folder has a part that `list_part` can list."""
    if not root.is_dir():
        return False
    parts = [path for path in root.iterdir() if guess_part(path.name) and path.is_dir()]
    return (root / part).is_dir() or (part == "test" and not parts)


def list_part(root: Path, part: str) -> PictureList:
    """List only one part, which may have any classes: images to evaluate, not to learn from.

    A folder without parts has test images: its own folders are their classes.

    Args:
        part: one that the folder has by `has_part`.

    Raises:
        UserError: there are no pictures, or the folder is not laid out as it should be.
    """
    place = root / part if (root / part).is_dir() else root
    found = {
        name: _list_class(root, folder) for name, folder in sorted(_class_folders(place).items())
    }
    class_names = tuple(name for name, (pictures, _, _) in found.items() if pictures)
    if not class_names:
        raise UserError(
            f"data.root: {place} has no pictures; they must lie in a folder for each class, and "
            f"end in {_ENDINGS}"
        )
    others = [name for _, _, names in found.values() for name in names]
    return PictureList(
        root=root,
        class_names=class_names,
        parts={part: _label(root, [found[name] for name in class_names])},
        warnings=tuple(_left_out(f"end in none of {_ENDINGS}", others)),
    )


def _find_parts(root: Path) -> tuple[list[str], list[str]]:
    """Return the parts that are there, and the folders and pictures next to them."""
    parts = [part for part in PARTS if (root / part).is_dir()]
    ignored, wrong = [], []
    for path in sorted(root.iterdir()):
        if is_ignored(path.name) or path.name in parts:
            continue
        part = guess_part(path.name)
        if not path.is_dir():
            if part:
                _check_link(path)
            ignored += [path.name] * is_picture(path)
        elif not any(path.samefile(root / other) for other in parts):
            if part:
                advice = f"name it {part}"
                if part in parts:
                    advice = f"move its pictures into {root / part}, or remove it"
                wrong.append(f"{path} would be ignored; {advice}")
            ignored.append(path.name)
    if wrong:
        raise UserError(f"data.root: {', and '.join(wrong)}")
    if "train" not in parts:
        raise UserError(
            f"data.root: {root} has no folder train; it must have train/CLASS/ with pictures of "
            "each class, and may have validation/CLASS/ and test/CLASS/"
        )
    return parts, ignored


def _class_folders(place: Path) -> dict[str, Path]:
    """Return the folders in that of a part, by the names of their classes."""
    found: dict[str, Path] = {}
    for path in sorted(_folders(place)):
        name = normalize_class_name(path.name)
        if not name:
            raise UserError(
                f"data.root: {place} has a folder whose name is only spaces, {path.name!r}; "
                "rename it"
            )
        if name in found:
            raise UserError(
                f"data.root: {place} has two folders of the class {name}, {found[name].name!a} and "
                f"{path.name!a}, which differ only in their Unicode form or in spaces; move the "
                "pictures into one of them"
            )
        found[name] = path
    return found


def _folders(place: Path) -> Iterator[Path]:
    """Yield the folders in that of a part; a picture next to them is a mistake."""
    for path in place.iterdir():
        if is_ignored(path.name):
            continue
        _check_name(path)
        if path.is_dir():
            yield path
            continue
        _check_link(path)
        if is_picture(path):
            raise UserError(f"data.root: {path} is not in the folder of a class")


def _common_classes(root: Path, folders: Mapping[str, Mapping[str, Path]]) -> tuple[str, ...]:
    """Return the classes of train/, which all parts must have, and no others."""
    names = folders["train"].keys()
    for part, others in folders.items():
        if others.keys() != names:
            lacking = ", ".join(map(describe, sorted(names - others.keys())))
            unknown = ", ".join(map(describe, sorted(others.keys() - names)))
            words = [f"lacks {lacking}"] * bool(lacking) + [f"has {unknown}"] * bool(unknown)
            raise UserError(
                f"data.root: {root / part} {' and '.join(words)}, unlike {root / 'train'}; all "
                "parts must have the same classes"
            )
    if len(names) < 2:
        found = ", ".join(names) or "none"
        raise UserError(
            f"data.root: {root / 'train'} must have at least 2 folders, one a class; found {found}"
        )
    return tuple(sorted(names))


_Listed = tuple[list[str], list[tuple[int, ...]], list[str]]
"""pictures, their files' states, and other files, as names below a root"""


def _list_class(root: Path, folder: Path) -> _Listed:
    """Return what is in the folder of a class."""
    pictures: list[str] = []
    states: list[tuple[int, ...]] = []
    others: list[str] = []
    place = folder.relative_to(root).as_posix()
    with os.scandir(folder) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            if is_ignored(entry.name):
                continue
            _check_name(Path(entry.path))
            if entry.is_dir():
                raise UserError(
                    f"data.root: {entry.path} is a folder in that of a class, whose pictures must "
                    "lie in it directly"
                )
            if is_picture(Path(entry.name)):
                pictures.append(f"{place}/{entry.name}")
                states.append(state_of(entry))
            else:
                others.append(f"{place}/{entry.name}")
    return pictures, states, others


def _label(root: Path, by_class: list[_Listed]) -> ListedPictures:
    names = [name for pictures, _, _ in by_class for name in pictures]
    states = np.array([state for _, listed, _ in by_class for state in listed], dtype=np.int64)
    labels = np.repeat(np.arange(len(by_class)), [len(pictures) for pictures, _, _ in by_class])
    return ListedPictures(Places(root, pack(names), states=states), labels)


def _left_out(why: str, names: list[str]) -> list[str]:
    return [f"left out, as they {why}: {join_some(names)}"] if names else []


def _check_link(path: Path) -> None:
    """Refuse a broken link to a part or a class, which would otherwise be missing silently."""
    if path.is_symlink() and not path.exists():
        raise UserError(f"data.root: {path} is a link that leads nowhere; fix or remove it")


def _check_name(path: Path) -> None:
    try:
        path.name.encode()
    except UnicodeEncodeError as error:
        raise UserError(
            f"data.root: {str(path)!r} has a name that is not UTF-8; rename it"
        ) from error
