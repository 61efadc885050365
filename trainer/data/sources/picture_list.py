"""Which pictures a folder of one's own holds: PART/CLASS/FILE, and what is wrong with that."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

from trainer.base.errors import UserError
from trainer.data.pictures.decoding import SUFFIXES
from trainer.data.pictures.names import (
    PARTS,
    guess_part,
    is_ignored,
    is_picture,
    normalize_class_name,
    shown,
)

_KEPT_ONE_IN = 5
"""one picture in so many of train/ is kept for the test where there is no test/"""

ByClass = tuple[tuple[str, ...], ...]
"""names of files, relative to the root, of each class in the classes' order"""


@dataclass(frozen=True)
class PictureList:
    """What a folder holds.

    Args:
        class_names: sorted.
        parts: of those of PARTS that are there, the files, sorted by name in each class.
        others: files that are no pictures by their names, and so are left out.
        beside: folders and pictures beside the parts, which are left out too.
    """

    class_names: tuple[str, ...]
    parts: Mapping[str, ByClass]
    others: tuple[str, ...]
    beside: tuple[str, ...]

    def count(self, part: str) -> int:
        """How many pictures the part has."""
        return sum(map(len, self.parts[part]))

    def files(self) -> list[str]:
        """All of them."""
        return [name for by_class in self.parts.values() for names in by_class for name in names]


def list_pictures(root: Path) -> PictureList:
    """Look through the folders; hidden ones and those of systems are left out, links are followed.

    Raises:
        UserError: it is not laid out as it should be.
    """
    if not root.is_dir():
        raise UserError(f"data.root: there is no folder {root}")
    parts, beside = _parts(root)
    folders = {part: _class_folders(root / part) for part in parts}
    class_names = _class_names(root, folders)
    found = {
        part: [_pictures(root, f"{part}/{of_part[name]}") for name in class_names]
        for part, of_part in folders.items()
    }
    return PictureList(
        class_names=class_names,
        parts={part: tuple(names for names, _ in classes) for part, classes in found.items()},
        others=tuple(
            name for classes in found.values() for _, others in classes for name in others
        ),
        beside=beside,
    )


def _parts(root: Path) -> tuple[list[str], tuple[str, ...]]:
    """The parts that are there, and what else is."""
    parts = [part for part in PARTS if (root / part).is_dir()]
    beside, wrong = [], []
    for path in sorted(root.iterdir()):
        if is_ignored(path.name) or path.name in parts:
            continue
        if not path.is_dir():
            if guess_part(path.name):
                _check_link(path)
            beside += [path.name] * is_picture(path)
        elif not any(path.samefile(root / part) for part in parts):
            meant = guess_part(path.name)
            if meant:
                advice = f"name it {meant}"
                if meant in parts:
                    advice = f"put its pictures into {root / meant}, or take it away"
                wrong.append(f"{path} would be ignored; {advice}")
            beside.append(path.name)
    if wrong:
        raise UserError(f"data.root: {', and '.join(wrong)}")
    if "train" not in parts:
        raise UserError(
            f"data.root: {root} has no folder train; it must hold train/CLASS/ with pictures "
            "of each class, and may hold validation/CLASS/ and test/CLASS/"
        )
    return parts, tuple(beside)


def _class_folders(part: Path) -> dict[str, str]:
    """The names of the folders in that of a part, by their classes."""
    found: dict[str, str] = {}
    for path in sorted(_visible(part)):
        name = normalize_class_name(path.name)
        if not name:
            raise UserError(
                f"data.root: {part} has a folder of blanks alone, {path.name!r}; name it"
            )
        if name in found:
            raise UserError(
                f"data.root: {part} has two folders of the class {name}, {found[name]!a} and "
                f"{path.name!a}, which differ in their Unicode form or in blanks alone; put the "
                "pictures into one of them"
            )
        found[name] = path.name
    return found


def has_part(root: Path, part: str) -> bool:
    """Whether a folder has a part that `list_part` can look through."""
    if not root.is_dir():
        return False
    parts = [path for path in root.iterdir() if guess_part(path.name) and path.is_dir()]
    return (root / part).is_dir() or (part == "test" and not parts)


def list_part(root: Path, part: str) -> PictureList:
    """Look through one part alone, which may have any classes: images to judge, not to learn from.

    A folder without any part holds test images: its own folders are their classes.

    Args:
        part: one that `has_part`.

    Raises:
        UserError: it holds no pictures, or is not laid out as it should be.
    """
    place = root / part if (root / part).is_dir() else root
    found = {
        name: _pictures(root, (place / folder).relative_to(root).as_posix(), may_be_empty=True)
        for name, folder in sorted(_class_folders(place).items())
    }
    classes = tuple(name for name, (pictures, _) in found.items() if pictures)
    if not classes:
        raise UserError(
            f"data.root: {place} holds no pictures; they must lie in a folder for each class, and "
            f"end in {', '.join(SUFFIXES)}"
        )
    return PictureList(
        class_names=classes,
        parts={part: tuple(found[name][0] for name in classes)},
        others=tuple(name for _, others in found.values() for name in others),
        beside=(),
    )


def _class_names(root: Path, folders: Mapping[str, Mapping[str, str]]) -> tuple[str, ...]:
    """Those of train/, and no others anywhere."""
    names = folders["train"].keys()
    for part, others in folders.items():
        if others.keys() != names:
            lacking = ", ".join(map(shown, sorted(names - others.keys())))
            alien = ", ".join(map(shown, sorted(others.keys() - names)))
            words = [f"lacks {lacking}"] * bool(lacking) + [f"has {alien}"] * bool(alien)
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


def _visible(folder: Path) -> Iterator[Path]:
    """The folders in a part's folder; a picture beside them is a mistake."""
    for path in folder.iterdir():
        if is_ignored(path.name):
            continue
        _check_name(path)
        if path.is_dir():
            yield path
            continue
        _check_link(path)
        if is_picture(path):
            raise UserError(f"data.root: {path} lies in no class's folder")


def _pictures(
    root: Path, folder: str, *, may_be_empty: bool = False
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Those of a class, whose folder is PART/CLASS, and other files."""
    names: list[str] = []
    others: list[str] = []
    for path in (root / folder).iterdir():
        if is_ignored(path.name):
            continue
        _check_name(path)
        if path.is_dir():
            raise UserError(
                f"data.root: {path} is a folder in that of a class, whose pictures must lie in it "
                "directly"
            )
        (names if is_picture(path) else others).append(f"{folder}/{path.name}")
    if not names and not may_be_empty:
        raise UserError(
            f"data.root: {root / folder} holds no pictures; they end in {', '.join(SUFFIXES)}"
        )
    return tuple(sorted(names)), tuple(sorted(others))


def _check_link(path: Path) -> None:
    """A part or a class that is a link must not be missing because the link leads nowhere."""
    if path.is_symlink() and not path.exists():
        raise UserError(f"data.root: {path} is a link that leads nowhere; mend it or take it away")


def _check_name(path: Path) -> None:
    try:
        path.name.encode()
    except UnicodeEncodeError as error:
        raise UserError(
            f"data.root: {str(path)!r} has a name that is no UTF-8; rename it"
        ) from error


def in_turn(by_class: ByClass) -> list[tuple[str, int]]:
    """Files and labels: the first of every class, then the second of every class, and so on.

    So the first ones in this order, which are what `data.train_size` and the like take, are of all
    classes.
    """
    labelled = [[(name, label) for name in names] for label, names in enumerate(by_class)]
    return [pair for turn in zip_longest(*labelled) for pair in turn if pair is not None]


def keep_test(by_class: ByClass, sha256: Mapping[str, str]) -> tuple[ByClass, ByClass]:
    """Divide pictures into those to train on and those to test on, a class at a time.

    What decides is a picture's content, not a seed: runs of all seeds are tested on the same ones,
    equal files stay together, and of a set that grows few change sides.

    Args:
        sha256: of the content of each file, hexadecimal.

    Raises:
        UserError: a class has too few.
    """
    train, test = [], []
    for names in by_class:
        keys = {name: _shuffled(sha256[name]) for name in names}
        distinct = sorted(keys.values())
        last = distinct[max(1, round(len(names) / _KEPT_ONE_IN)) - 1]
        test.append(tuple(name for name in names if keys[name] <= last))
        train.append(tuple(name for name in names if keys[name] > last))
        if not train[-1]:
            raise UserError(
                f"data.root: there is no folder test, and of the {len(names)} pictures in "
                f"{names[0].rpartition('/')[0]} none would be left to train on; at least 2 must "
                "differ"
            )
    return tuple(train), tuple(test)


def _shuffled(sha256: str) -> str:
    """A second hash, as somebody may have sorted files into folders by the first."""
    return hashlib.sha256(f"test/{sha256}".encode()).hexdigest()
