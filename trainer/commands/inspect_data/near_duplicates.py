"""Find images of different parts that look nearly the same, as copies in another size or quality.

Each image is shrunk to 8 x 9 greys; its hash has a bit for each pixel that is brighter than its
left neighbour (dHash: N. Krawetz, "Kind of Like That", 2013). Copies differ in few bits. Hashes
that differ in at most three agree in one of four bands of 16 bits, so only those that share a band
are compared. Flat images have the same hash: pairs count only where their pictures of 16 x 16 greys
are alike too.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import chain, pairwise, permutations, product
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.nn.functional import adaptive_avg_pool2d

from trainer.commands.inspect_data.image_statistics import SPLITS, InspectedImages
from trainer.data.dataset import ImageSet

MOST_BITS = 3
"""in which the hashes of nearly equal images differ"""
MOST_LEVELS = 6.0
"""of 255, by which their small pictures differ on average"""

_BANDS = 4
_SMALL = 16
_MOST_ALIKE = 50
"""images of a part with one hash that are compared: more are flat, or equal in every pixel"""
_BLOCK = 2000
"""hashes of one band that are compared at a time"""

Hashes = npt.NDArray[np.uint64]


def find(inspected: InspectedImages, most: int) -> dict[str, Any]:
    """Find pairs of nearly equal images in different parts, as JSON.

    Returns:
        How many images of one part have a near copy in another, how many pairs have different
        labels, and the `most` nearest pairs with their distance in bits. Pairs that are equal in
        every pixel are left out: they are duplicates.
    """
    looks = [describe(inspected.splits[part]) for part in SPLITS]
    hashes = np.concatenate([look[0] for look in looks])
    small = np.concatenate([look[1] for look in looks])
    sizes = [len(look[0]) for look in looks]
    parts = np.repeat(np.arange(len(SPLITS)), sizes)
    begins = np.cumsum([0, *sizes])
    pairs = []
    for one, other, bits in _near_pairs(hashes, parts):
        difference = np.abs(small[one].astype(np.int16) - small[other]).mean()
        if difference <= MOST_LEVELS:
            pairs.append((bits, float(difference), one, other))
    pairs.sort()

    def place(position: int) -> tuple[str, int]:
        part = int(parts[position])
        return SPLITS[part], position - int(begins[part])

    found, other_class, near = [], 0, set()
    for bits, _, one, other in pairs:
        first, second = place(one), place(other)
        if _equal(inspected.splits, first, second):
            continue
        near.add((first[0], second))
        other_class += inspected.label(first) != inspected.label(second)
        found.append(
            {"bits": bits, "images": [inspected.describe(first), inspected.describe(second)]}
        )
    counts = Counter(f"{second[0]}_in_{first}" for first, second in near)
    names = ("validation_in_train", "test_in_train", "test_in_validation")
    return {name: counts[name] for name in names} | {
        "count": len(found),
        "of_other_class": other_class,
        "pairs": found[:most],
    }


def describe(images: ImageSet) -> tuple[Hashes, npt.NDArray[np.uint8]]:
    """Return the hash of each image, uint64 (n,), and its small picture, uint8 (n, 256)."""
    weights = (1 << np.arange(64, dtype=np.uint64)).astype(np.uint64)
    hashes, small = [np.zeros(0, np.uint64)], [np.zeros((0, _SMALL**2), np.uint8)]
    for chunk in images.chunks():
        grey = chunk.cpu().float().mean(1, keepdim=True)
        levels = adaptive_avg_pool2d(grey, (8, 9))
        bits = (levels[..., 1:] > levels[..., :-1]).flatten(1).numpy()
        hashes.append((bits * weights).sum(1, dtype=np.uint64))
        small.append(adaptive_avg_pool2d(grey, _SMALL).flatten(1).round().to(torch.uint8).numpy())
    return np.concatenate(hashes), np.concatenate(small)


def _near_pairs(hashes: Hashes, parts: npt.NDArray[np.int64]) -> Iterator[tuple[int, int, int]]:
    """Yield the positions of images in different parts whose hashes differ in few bits."""
    distinct, inverse = np.unique(hashes, return_inverse=True)
    members: list[list[list[int]]] = [[[] for _ in SPLITS] for _ in distinct]
    for position, (number, part) in enumerate(zip(inverse.tolist(), parts.tolist(), strict=True)):
        if len(members[number][part]) < _MOST_ALIKE:
            members[number][part].append(position)
    same = ((number, number, 0) for number in range(len(distinct)))
    for one, other, bits in chain(same, _near_hashes(distinct)):
        for first, second in permutations(range(len(SPLITS)), 2):
            if first < second or one != other:
                for left, right in product(members[one][first], members[other][second]):
                    yield min(left, right), max(left, right), bits


def _near_hashes(distinct: Hashes) -> Iterator[tuple[int, int, int]]:
    seen: set[tuple[int, int]] = set()
    for band in range(_BANDS):
        key = (distinct >> np.uint64(16 * band)) & np.uint64(0xFFFF)
        order = np.argsort(key, kind="stable")
        cuts = np.flatnonzero(np.diff(key[order])) + 1
        for begin, end in pairwise([0, *cuts.tolist(), len(order)]):
            group = order[begin:end]
            for start in range(0, len(group), _BLOCK):
                rows = group[start : start + _BLOCK]
                bits = np.bitwise_count(distinct[rows][:, None] ^ distinct[group])
                for row, column in np.argwhere(bits <= MOST_BITS).tolist():
                    pair = (int(rows[row]), int(group[column]))
                    if pair[0] < pair[1] and pair not in seen:
                        seen.add(pair)
                        yield *pair, int(bits[row, column])


def _equal(splits: Mapping[str, ImageSet], one: tuple[str, int], other: tuple[str, int]) -> bool:
    first, second = (
        splits[part].images[position : position + 1] for part, position in (one, other)
    )
    return torch.equal(first, second)
