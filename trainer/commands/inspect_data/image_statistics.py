"""Count the images of a run, measure their files, and find duplicates."""

from __future__ import annotations

import hashlib
import statistics
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

from trainer.base.terminal import progress_bar
from trainer.config.schema import RunConfig
from trainer.data import loading
from trainer.data.dataset import Dataset, ImageSet
from trainer.data.sources import reading
from trainer.data.sources.picture_index import Contents

SPLITS = ("train", "validation", "test")

Place = tuple[str, int]
"""a split and a position in it"""


@dataclass(frozen=True, eq=False)
class InspectedImages:
    """All images of a run, and where they come from.

    Args:
        splits: by the names in SPLITS, each in file order.
        names: of each image of a split, for people: its file, or its number in the file of all.
        contents: what the pictures are before they are resized; None if there are none.
    """

    dataset: Dataset
    splits: Mapping[str, ImageSet]
    names: Mapping[str, Sequence[str]]
    contents: Contents | None

    def describe(self, place: Place) -> dict[str, Any]:
        """Return an image as JSON."""
        part, position = place
        return {
            "part": part,
            "position": position,
            "name": self.names[part][position],
            "class": self.dataset.class_names[self.label(place)],
        }

    def label(self, place: Place) -> int:
        """Return the number of an image's class."""
        part, position = place
        return int(self.splits[part].targets[position])


def load(config: RunConfig) -> InspectedImages:
    """Load the images as a run of this configuration has them.

    Raises:
        UserError: as a run would raise it.
    """
    reading.prepare(config.data)
    dataset, subsets = loading.build_dataset(config.data, config.seed, reading.read(config.data))
    splits = dict(zip(SPLITS, (dataset.train, dataset.validation, dataset.test), strict=True))
    names = {}
    for part, subset in zip(SPLITS, subsets, strict=True):
        files = subset.data.names
        names[part] = [
            files[i] if files is not None else f"{subset.split} image {i}"
            for i in subset.positions.tolist()
        ]
    return InspectedImages(dataset, splits, names, reading.read_picture_contents(config.data))


def compute(inspected: InspectedImages, most: int) -> dict[str, Any]:
    """Return counts, sizes and at most `most` groups of duplicates, as JSON."""
    dataset = inspected.dataset
    channels, *image_size = dataset.train.images.shape[1:]
    counts = {
        part: np.bincount(images.targets.numpy(), minlength=len(dataset.class_names)).tolist()
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
            {"name": name} | {part: counts[part][label] for part in SPLITS}
            for label, name in enumerate(dataset.class_names)
        ],
        "pictures": _file_statistics(inspected.contents),
        "duplicates": _duplicates(inspected, most),
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


def _duplicates(inspected: InspectedImages, most: int) -> dict[str, Any]:
    """Find images that are equal in every pixel, at the size that the run gives them.

    Returns:
        For each split how many of its images are in it already; for each pair of splits how many
        images of one are in the other too; how many groups of equal images there are, how many of
        them with several labels, and the first of them: those over several splits, then those of
        several labels, then the largest.
    """
    places: dict[bytes, list[Place]] = {}
    for place, digest in _digests(inspected):
        places.setdefault(digest, []).append(place)
    groups = [group for group in places.values() if len(group) > 1]
    found: dict[str, Any] = dict.fromkeys(SPLITS, 0)
    pairs = list(combinations(SPLITS, 2))
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


def _digests(inspected: InspectedImages) -> Iterator[tuple[Place, bytes]]:
    total = sum(map(len, inspected.splits.values()))
    with progress_bar("comparing images", total) as progress:
        for part, split in inspected.splits.items():
            images = (image for chunk in split.chunks() for image in chunk.numpy())
            for position, image in enumerate(images):
                yield (part, position), hashlib.blake2b(image.data, digest_size=16).digest()
                progress.update()
