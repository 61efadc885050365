"""Count the images of a run, measure their files, and find duplicates."""

from __future__ import annotations

import hashlib
import statistics
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from trainer.base.terminal import progress_bar
from trainer.config.schema import RunConfig
from trainer.data import label_matrix, loading, near_copies
from trainer.data.dataset import Dataset, ImageSet
from trainer.data.near_copies import Looks
from trainer.data.pictures import packed_names
from trainer.data.pictures.names import PARTS
from trainer.data.sources import reading
from trainer.data.sources.picture_index import Contents
from trainer.data.sources.source_data import Cached, Subset

Place = tuple[str, int]
"""a split and a position in it"""

_DIGEST_BYTES = 16


@dataclass(frozen=True, eq=False)
class Seen:
    """What one pass over all images has shown, a row for each, those of train first.

    Args:
        digests: of the pixels, bytes of 16, (n,).
        looks: what they look like, (n,).
        begins: the first row of each of PARTS, and how many rows there are.
    """

    digests: npt.NDArray[np.bytes_]
    looks: Looks
    begins: list[int]

    def part(self, name: str) -> Seen:
        """Return the rows of one of PARTS."""
        number = PARTS.index(name)
        begin, end = self.begins[number : number + 2]
        return Seen(self.digests[begin:end], self.looks[begin:end], [0, end - begin])

    def place(self, row: int) -> Place:
        """Return the image of a row."""
        number = int(np.searchsorted(self.begins, row, side="right")) - 1
        return PARTS[number], row - self.begins[number]


@dataclass(frozen=True, eq=False)
class InspectedImages:
    """All images of a run, and where they come from.

    Args:
        splits: by the names in PARTS, each in file order.
        subsets: what each of them is of the source.
        names: of each image of a split, for people: its file, or its number in the file of all.
        contents: what the pictures are before they are resized; None if there are none.
        cached: where the cache has them; None: they are no pictures.
    """

    dataset: Dataset
    splits: Mapping[str, ImageSet]
    subsets: Mapping[str, Subset]
    names: Mapping[str, Sequence[str]]
    contents: Contents | None
    cached: Cached | None

    def describe(self, place: Place) -> dict[str, Any]:
        """Return an image as JSON."""
        part, position = place
        return {
            "part": part,
            "position": position,
            "name": self.names[part][position],
            "class": " | ".join(self._names(place)) or "no label",
        }

    def label(self, place: Place) -> Hashable:
        """Return what is equal for images of the same class, or of the same labels."""
        return tuple(self._names(place))

    def _names(self, place: Place) -> list[str]:
        part, position = place
        label = self.splits[part].targets[position].numpy()
        if label.ndim:
            return label_matrix.names_of(label, self.dataset.class_names)
        return [self.dataset.class_names[int(label)]]


def load(config: RunConfig) -> InspectedImages:
    """Load the images as a run of this configuration has them.

    Raises:
        UserError: as a run would raise it.
    """
    reading.prepare(config.data)
    dataset, chosen = loading.build_dataset(config.data, config.seed, reading.read(config.data))
    splits = dict(zip(PARTS, (dataset.train, dataset.validation, dataset.test), strict=True))
    subsets = dict(zip(PARTS, chosen, strict=True))
    names: dict[str, Sequence[str]] = {}
    for part, subset in subsets.items():
        positions, files = subset.positions, subset.data.names
        if files is None:
            names[part] = [f"{subset.split} image {i}" for i in positions.tolist()]
        else:
            names[part] = packed_names.select(files, positions)
    contents = reading.read_picture_contents(config.data)
    cached = loading.name_choice(chosen)
    return InspectedImages(dataset, splits, subsets, names, contents, cached)


def see(inspected: InspectedImages) -> Seen:
    """Look at all images, in one pass; what they look like is kept for later runs.

    Raises:
        UserError: it cannot be kept.
    """
    begins = np.cumsum([0, *map(len, inspected.splits.values())]).tolist()
    digests = np.empty((begins[-1], _DIGEST_BYTES), dtype=np.uint8)
    looks = np.empty(begins[-1], dtype=near_copies.LOOK)
    row = 0
    with progress_bar("comparing images", begins[-1]) as progress:
        for split in inspected.splits.values():
            for chunk in split.chunks():
                end = row + len(chunk)
                looks[row:end] = near_copies.describe(chunk)
                for place, image in enumerate(chunk.numpy(), row):
                    digest = hashlib.blake2b(image.data, digest_size=_DIGEST_BYTES).digest()
                    digests[place] = np.frombuffer(digest, np.uint8)
                progress.update(len(chunk))
                row = end
    if inspected.cached:
        near_copies.keep(inspected.cached, looks)
    return Seen(digests.view(f"S{_DIGEST_BYTES}")[:, 0], looks, begins)


def compute(inspected: InspectedImages, seen: Seen, most: int) -> dict[str, Any]:
    """Return counts, sizes and at most `most` groups of duplicates, as JSON."""
    dataset = inspected.dataset
    channels, *image_size = dataset.train.images.shape[1:]
    counts = {
        part: label_matrix.count_images(images.targets.numpy(), len(dataset.class_names)).tolist()
        for part, images in inspected.splits.items()
    }
    return {
        "data": {
            "name": dataset.name,
            "source": dataset.source,
            "fingerprint": dataset.fingerprint,
            "image_size": image_size,
            "channels": channels,
        },
        "classes": [
            {"name": name} | {part: counts[part][label] for part in PARTS}
            for label, name in enumerate(dataset.class_names)
        ],
        "images": {part: len(images) for part, images in inspected.splits.items()},
        "without_label": {
            part: int((images.targets.numpy() == 0).all(1).sum()) if images.targets.ndim == 2 else 0
            for part, images in inspected.splits.items()
        },
        "pictures": _file_statistics(inspected.contents),
        "duplicates": _duplicates(inspected, seen, most),
    }


def _file_statistics(contents: Contents | None) -> dict[str, Any] | None:
    """Return counts and sizes (height, width); the smallest and the largest by their area."""
    if contents is None:
        return None
    sizes = contents.sizes[contents.is_picture]
    channels = contents.channels[contents.is_picture]
    distinct = np.unique(sizes, axis=0)  # by height, then by width
    by_area = distinct[np.argsort(distinct.prod(axis=1, dtype=np.int64), kind="stable")]
    return {
        "count": len(sizes),
        "sizes": len(distinct),
        "smallest": by_area[0].tolist(),
        "median": [statistics.median_low(side) for side in sizes.T.tolist()],
        "largest": by_area[-1].tolist(),
        "grey": int((channels == 1).sum()),
        "colour": int((channels == 3).sum()),
        "other_channels": int((~np.isin(channels, (1, 3))).sum()),
    }


def _duplicates(inspected: InspectedImages, seen: Seen, most: int) -> dict[str, Any]:
    """Find images that are equal in every pixel, at the size that the run gives them.

    Returns:
        For each split how many of its images are in it already; for each pair of splits how many
        images of one are in the other too; how many groups of equal images there are, how many of
        them with several labels, and the first of them: those over several splits, then those of
        several labels, then the largest.
    """
    order = np.argsort(seen.digests, kind="stable")
    ordered = seen.digests[order]
    cuts = np.flatnonzero(ordered[1:] != ordered[:-1]) + 1
    equal = [
        order[begin:end].tolist()
        for begin, end in pairwise([0, *cuts, len(order)])
        if end - begin > 1
    ]
    groups = [[seen.place(row) for row in rows] for rows in sorted(equal)]
    found: dict[str, Any] = dict.fromkeys(PARTS, 0)
    pairs = list(combinations(PARTS, 2))
    found |= {f"{second}_in_{first}": 0 for first, second in pairs}
    for group in groups:
        counts = Counter(part for part, _ in group)
        for part, count in counts.items():
            found[part] += count - 1
        for first, second in pairs:
            if first in counts:
                found[f"{second}_in_{first}"] += counts[second]

    def labels(group: list[Place]) -> int:
        return len(set(map(inspected.label, group)))

    def parts(group: list[Place]) -> int:
        return len({part for part, _ in group})

    groups.sort(key=lambda group: (parts(group), labels(group), len(group)), reverse=True)
    return found | {
        "count": len(groups),
        "of_other_class": sum(labels(group) > 1 for group in groups),
        "groups": [[inspected.describe(place) for place in group] for group in groups[:most]],
    }
