"""Report images of different parts that look nearly the same."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np

from trainer.commands.inspect_data.image_statistics import InspectedImages, Seen
from trainer.data import near_copies
from trainer.data.pictures.names import PARTS


def report(inspected: InspectedImages, seen: Seen, most: int) -> dict[str, Any]:
    """Report pairs of nearly equal images in different parts, as JSON.

    Returns:
        How many images of one part have a near copy in another, how many pairs have different
        labels, and the `most` nearest pairs with their distance in bits. Pairs that are equal in
        every pixel are left out: they are duplicates.
    """
    found: dict[str, Any] = {}
    count, other_class, pairs = 0, 0, []
    for first, second in combinations(PARTS, 2):
        ones, others = seen.part(first), seen.part(second)
        near = near_copies.find_pairs(ones.looks, others.looks)
        differ = np.flatnonzero(ones.digests[near.ones] != others.digests[near.others])
        near = near.select(differ)
        labels, other_labels = (
            inspected.splits[part].targets.numpy()[positions]
            for part, positions in ((first, near.ones), (second, near.others))
        )
        found[f"{second}_in_{first}"] = len(np.unique(near.others))
        count += len(differ)
        differs = labels != other_labels
        other_class += int((differs.any(1) if differs.ndim == 2 else differs).sum())
        nearest = zip(near.bits[:most], near.ones[:most], near.others[:most], strict=True)
        pairs += [(int(bits), (first, int(one)), (second, int(two))) for bits, one, two in nearest]
    pairs.sort(key=lambda pair: pair[0])
    return found | {
        "count": count,
        "of_other_class": other_class,
        "pairs": [
            {"bits": bits, "images": [inspected.describe(one), inspected.describe(other)]}
            for bits, one, other in pairs[:most]
        ],
    }
