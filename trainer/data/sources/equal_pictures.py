"""Make one picture with several labels of equal files in the folders of several classes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from trainer.base.errors import UserError
from trainer.data.pictures.picture_set import ListedPictures
from trainer.data.sources.picture_index import Contents


def merge(
    parts: Mapping[str, ListedPictures], contents: Mapping[str, Contents], classes: int
) -> tuple[dict[str, ListedPictures], dict[str, Contents]]:
    """Give each picture the labels of all files of its part that have the same bytes.

    Of equal files the first by name stays. One that cannot be read stays by itself.

    Args:
        parts: with one label for each file.
        classes: how many there are.

    Returns:
        The pictures that are left, with labels uint8 (n, classes), and their contents.

    Raises:
        UserError: equal files are of two groups.
    """
    listed, left = {}, {}
    for part, pictures in parts.items():
        if pictures.labels.ndim == 2:
            listed[part], left[part] = pictures, contents[part]
        else:
            listed[part], left[part] = _merge(pictures, contents[part], classes)
    return listed, left


def _merge(
    pictures: ListedPictures, contents: Contents, classes: int
) -> tuple[ListedPictures, Contents]:
    names = np.array(list(pictures.places.names))
    by_name = np.argsort(names, kind="stable")
    keys = contents.sha256.copy()
    broken = np.flatnonzero(~contents.is_picture)
    keys[broken] = 0
    keys[broken, :8] = broken[:, None].astype("<u8").view(np.uint8)
    whole = np.ascontiguousarray(keys).view("V32")[:, 0]
    _, first, number = np.unique(whole[by_name], return_index=True, return_inverse=True)
    number_of = np.empty(len(number), np.int64)
    number_of[by_name] = number
    kept = by_name[first]
    _check_groups(pictures, kept[number_of])
    matrix = np.zeros((len(kept), classes), np.uint8)
    matrix[number_of, pictures.labels] = 1
    order = np.argsort(kept)
    positions = kept[order]
    merged = replace(pictures.select(positions), labels=matrix[order])
    return merged, contents.select(positions)


def _check_groups(pictures: ListedPictures, first: npt.NDArray[np.int64]) -> None:
    """Make sure that equal files share their group; `first` is the one that stays of each."""
    groups = pictures.groups
    if groups is None:
        return
    for row, other in enumerate(first.tolist()):
        if row != other and groups[row] != groups[other]:
            raise UserError(
                f"data.groups: {pictures.places[row]} and {pictures.places[other]} are the same "
                f"picture in the groups {groups[row]} and {groups[other]}; it must be of one"
            )
