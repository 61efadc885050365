"""Tell which pictures belong together, as those of a patient, an animal or a film do.

What shares a group stays on one side of every split. Pictures of one group are often so alike that
a network which has seen some of them recognises the others by what does not matter.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import combinations, pairwise

import numpy as np
import numpy.typing as npt

from trainer.base.errors import UserError
from trainer.data.label_matrix import names_of
from trainer.data.pictures.names import MOST_NAMED, join_some, normalize_class_name
from trainer.data.pictures.packed_names import pack
from trainer.data.pictures.picture_set import ListedPictures

Indices = npt.NDArray[np.int64]
Parts = Mapping[str, ListedPictures]


def name_groups(parts: Parts, class_names: tuple[str, ...], groups: int | str | None) -> Parts:
    """Return the pictures of each part with their groups.

    Args:
        groups: data.groups, a folder level below the class or a pattern on the picture's name;
            None or a column: those that the source has given.

    Raises:
        UserError: a picture has no group, or a group is in several parts.
    """
    if isinstance(groups, int):
        parts = {
            part: replace(listed, groups=pack(list(_by_level(part, listed, class_names, groups))))
            for part, listed in parts.items()
        }
    elif groups is not None and is_pattern(groups):
        parts = _by_pattern(parts, groups)
    _check_apart(parts)
    return parts


def is_pattern(groups: str) -> bool:
    """Return whether data.groups is a pattern, which has brackets, and not a column's name."""
    return re.compile(groups).groups > 0


def _by_level(
    part: str, listed: ListedPictures, class_names: tuple[str, ...], level: int
) -> Iterator[str]:
    """Yield the path of each picture's folder at this level, below its class."""
    for name, label in zip(listed.places.names, listed.labels, strict=True):
        own = names_of(label, class_names) if label.ndim else [class_names[label]]
        folders = name.split("/")[:-1]
        begin = int(folders[:1] == [part])
        while begin < len(folders):
            begin += 1
            if normalize_class_name(folders[begin - 1]) in own:
                break
        below = folders[begin : begin + level]
        if len(below) < level:
            raise UserError(
                f"data.groups: {name} lies in {len(below)} folders below its class, and data.groups"
                f" is level {level}; every picture must lie in at least as many"
            )
        yield "/".join(below)


def _by_pattern(parts: Parts, pattern: str) -> Parts:
    compiled = re.compile(pattern)
    named, without = {}, []
    for part, listed in parts.items():
        found = []
        for name in listed.places.names:
            match = compiled.search(name.rpartition("/")[2])
            if match and match[1] is not None:
                found.append(match[1])
            else:
                without.append(name)
        named[part] = found
    if without:
        count = sum(map(len, parts.values()))
        which = "none" if len(without) == count else f"not {len(without):,}"
        raise UserError(
            f"data.groups: the pattern {pattern} matches {which} of the names of {count:,} "
            f"pictures: {join_some(without)}; every picture must have a group"
        )
    return {part: replace(listed, groups=pack(named[part])) for part, listed in parts.items()}


def _check_apart(parts: Parts) -> None:
    """Make sure that no group is in two of the parts that the user has made."""
    first: dict[str, dict[str, int]] = {}
    for part, listed in parts.items():
        first[part] = {}
        for row, group in enumerate(listed.groups or ()):
            first[part].setdefault(group, row)
    wrong = [
        f"{group}, with {parts[one].places[first[one][group]]} in {one} and "
        f"{parts[other].places[first[other][group]]} in {other}"
        for one, other in combinations(parts, 2)
        for group in sorted(first[one].keys() & first[other].keys())
    ]
    if wrong:
        more = f"\n- and {len(wrong) - MOST_NAMED:,} more" * (len(wrong) > MOST_NAMED)
        listed_wrong = "\n- ".join(wrong[:MOST_NAMED]) + more
        raise UserError(
            f"data.groups: {len(wrong):,} groups are in two parts:\n- {listed_wrong}\nMove the "
            "pictures of a group into one part, or correct data.groups"
        )


def join_groups(groups: Indices, contents: npt.NDArray[np.uint64]) -> Indices:
    """Return numbers of groups, int64 (n,), by which those that hold equal pictures are one.

    Args:
        groups: the number of each picture's group, from 0, int64 (n,).
        contents: of each picture: equal for equal pictures, (n,).
    """
    order = np.lexsort((groups, contents))
    equal = contents[order[1:]] == contents[order[:-1]]
    pairs = np.unique(groups[np.stack([order[:-1], order[1:]])[:, equal]], axis=1)
    parents = list(range(int(groups.max()) + 1))

    def find(number: int) -> int:
        while parents[number] != number:
            parents[number] = number = parents[parents[number]]
        return number

    for one, other in pairs.T.tolist():
        first, second = sorted((find(one), find(other)))
        parents[second] = first
    joined: Indices = np.array([find(number) for number in range(len(parents))])[groups]
    return joined


def choose_test_groups(
    labels: Indices, groups: Indices, ranks: Indices, wanted: Indices
) -> npt.NDArray[np.bool_]:
    """Choose groups to be tested on, so that of each class about as many pictures as wanted are.

    The groups are asked in the order of their lowest rank. One is chosen where at least half of
    its pictures are wanted; for a class that remains without any, the first one that has it. None
    is chosen that would leave a class without pictures to train on.

    Args:
        labels: the class of each picture, int64 (n,).
        groups: the number of its group, int64 (n,).
        ranks: a number that its content has drawn, int64 (n,).
        wanted: how many pictures of each class, int64 (classes,).

    Returns:
        Whether each picture is tested on, (n,); a class may be left without such pictures.
    """
    classes = len(wanted)
    pairs, counts = np.unique(groups * classes + labels, return_counts=True)
    numbers, begins = np.unique(pairs // classes, return_index=True)
    lowest = np.full(numbers[-1] + 1, np.iinfo(np.int64).max)
    np.minimum.at(lowest, groups, ranks)
    rows = list(pairwise([*begins.tolist(), len(pairs)]))
    left, chosen = np.bincount(labels, minlength=classes), set()
    lacking = wanted.copy()
    asked = [int(position) for position in np.argsort(lowest[numbers], kind="stable")]
    for must_have in (False, True):
        for position in asked:
            begin, end = rows[position]
            of_classes, have = pairs[begin:end] % classes, counts[begin:end]
            useful = np.minimum(have, lacking[of_classes].clip(min=0)).sum()
            if must_have:
                is_wanted = (lacking[of_classes] == wanted[of_classes]).any()
            else:
                is_wanted = 2 * useful >= have.sum()
            if position not in chosen and is_wanted and (left[of_classes] > have).all():
                chosen.add(position)
                left[of_classes] -= have
                lacking[of_classes] -= have
    is_chosen: npt.NDArray[np.bool_] = np.isin(groups, numbers[sorted(chosen)])
    return is_chosen
