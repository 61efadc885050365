"""Find copies of training pictures among those that a network is judged by."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from trainer.data import near_copies
from trainer.data.label_matrix import Labels
from trainer.data.near_copies import Looks
from trainer.data.pictures.names import MOST_NAMED
from trainer.data.sources.source_data import Subset

Keys = npt.NDArray[np.uint64]
"""the first 64 bits of pictures' SHA-256"""


def describe(train: Subset, validation: Subset, test: Subset) -> tuple[str, ...]:
    """Say which validation and test pictures are, byte for byte, files that are trained on too.

    Returns:
        For each of the two that has some: how many, whether their classes are the same, and the
        names of the first. Nothing for images that are not of picture files.
    """
    found = (_describe(train, validation, "validation"), _describe(train, test, "test"))
    return tuple(words for words in found if words)


def _describe(train: Subset, judged: Subset, part: str) -> str | None:
    trained, keys = _keys(train), _keys(judged)
    if trained is None or keys is None or not len(trained):
        return None
    # NumPy's functions for sets take fifty times as long as to sort and search.
    ordered = np.sort(keys)
    shared = np.unique(ordered[_rows_of(np.sort(trained), ordered)])
    if not len(shared):
        return None
    copies, originals = (_rows_of(shared, all_keys) for all_keys in (keys, trained))
    first = dict(zip(*np.unique(trained[originals], return_index=True), strict=True))
    named = [
        f"{_name(judged, row)} (in training {_name(train, int(originals[first[keys[row]]]))})"
        for row in copies[:MOST_NAMED].tolist()
    ]
    named += [f"and {len(copies) - MOST_NAMED:,} more"] * (len(copies) > MOST_NAMED)
    other_class = _count_other_class(shared, (train, trained, originals), (judged, keys, copies))
    about = f" ({other_class:,} with another class)" if other_class else ""
    are = "is an exact copy of a" if len(copies) == 1 else "are exact copies of"
    return (
        f"data.root: {len(copies):,} of {len(keys):,} {part} pictures {are} training "
        f"picture{'s' * (len(copies) != 1)}{about}, so that {part} results say less of new "
        f"pictures: {', '.join(named)}"
    )


def describe_near(train: Subset, validation: Subset, test: Subset, looks: Looks) -> tuple[str, ...]:
    """Say which validation and test pictures look nearly the same as those that are trained on.

    Args:
        looks: of the images of the three, one after the other.

    Returns:
        As `describe`, without the exact copies that it names.
    """
    ends = np.cumsum([len(one.positions) for one in (train, validation, test)]).tolist()
    trained = looks[: ends[0]]
    found = []
    for judged, part, begin, end in (
        (validation, "validation", ends[0], ends[1]),
        (test, "test", ends[1], ends[2]),
    ):
        near = near_copies.find_pairs(trained, looks[begin:end])
        ours, theirs = _keys(train), _keys(judged)
        if ours is not None and theirs is not None:
            near = near.select(np.flatnonzero(~np.isin(theirs, ours)[near.others]))
        rows, first = np.unique(near.others, return_index=True)
        if not len(rows):
            continue
        named = [
            f"{_name(judged, row)} (in training {_name(train, int(near.ones[pair]))})"
            for row, pair in zip(
                rows[:MOST_NAMED].tolist(), first[:MOST_NAMED].tolist(), strict=True
            )
        ]
        named += [f"and {len(rows) - MOST_NAMED:,} more"] * (len(rows) > MOST_NAMED)
        found.append(
            f"data.root: {len(rows):,} of {end - begin:,} {part} pictures look nearly the same as "
            f"training pictures, so that {part} results may say less of new pictures: "
            f"{', '.join(named)}; inspect-data --page shows them"
        )
    return tuple(found)


def _rows_of(wanted: Keys, keys: Keys) -> npt.NDArray[np.int64]:
    """Return the rows whose keys are wanted; `wanted` is sorted."""
    places = np.searchsorted(wanted, keys).clip(max=len(wanted) - 1)
    return np.flatnonzero(wanted[places] == keys)


def _count_other_class(
    shared: Keys,
    trained: tuple[Subset, Keys, npt.NDArray[np.int64]],
    judged: tuple[Subset, Keys, npt.NDArray[np.int64]],
) -> int:
    """Count the copies that are trained on, but never with their own class or labels."""

    def pair(subset: Subset, keys: Keys, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        labels = subset.data.labels[subset.positions[rows]]
        classes = np.searchsorted(distinct, _one_number(labels))
        return classes * len(shared) + np.searchsorted(shared, keys[rows])

    of_all = [one.data.labels[one.positions[rows]] for one, _, rows in (trained, judged)]
    distinct = np.unique(np.concatenate([_one_number(labels) for labels in of_all]))
    return int((~np.isin(pair(*judged), pair(*trained))).sum())


def _one_number(labels: Labels) -> npt.NDArray[Any]:
    """Return labels, or of images that may have several each row, as one value that sorts."""
    if labels.ndim == 1:
        return labels
    return np.ascontiguousarray(labels).view(f"S{labels.shape[1]}")[:, 0]


def _keys(subset: Subset) -> Keys | None:
    """Return the first 64 bits of each picture's SHA-256, (n,); None if there are no files."""
    sha256 = subset.data.sha256
    if sha256 is None:
        return None
    return np.ascontiguousarray(sha256[subset.positions, :8]).view("<u8")[:, 0]


def _name(subset: Subset, row: int) -> str:
    assert subset.data.names is not None, "each picture has one"
    return subset.data.names[int(subset.positions[row])]
