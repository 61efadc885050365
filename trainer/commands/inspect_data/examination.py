"""Counts, sizes and duplicates of the images of a run."""

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
from trainer.data.pictures.decoding import ImageInfo
from trainer.data.sources import reading

Place = tuple[str, int]
"""a part and a position in it"""


@dataclass(frozen=True, eq=False)
class Part:
    """One of train, validation and test.

    Args:
        images: in file order.
        labels: int64 (n,).
        names: of each image, for people: its file, or its number in the file of all.
    """

    images: ImageSet
    labels: np.ndarray
    names: Sequence[str]


@dataclass(frozen=True, eq=False)
class Inspected:
    """What is looked at.

    Args:
        parts: train, validation and test, by name.
        infos: of picture files before they are made fit, by name; empty where there are none.
    """

    dataset: Dataset
    parts: Mapping[str, Part]
    infos: Mapping[str, ImageInfo]

    def describe(self, place: Place) -> dict[str, Any]:
        """An image, as JSON has it."""
        part, position = place
        label = int(self.parts[part].labels[position])
        return {
            "part": part,
            "position": position,
            "name": self.parts[part].names[position],
            "class": self.dataset.class_names[label],
        }


def load(config: RunConfig) -> Inspected:
    """The images as a run of this configuration has them.

    Raises:
        UserError: as a run would raise it.
    """
    reading.prepare(config.data)
    dataset, subsets = loading.build_dataset(config.data, config.seed, reading.read(config.data))
    sets = (dataset.train, dataset.validation, dataset.test)
    parts = {}
    for part, images, subset in zip(("train", "validation", "test"), sets, subsets, strict=True):
        own = subset.data.names
        names = [own[i] if own else f"{subset.split} image {i}" for i in subset.positions.tolist()]
        parts[part] = Part(images, images.targets.numpy(), names)
    return Inspected(dataset, parts, reading.read_picture_infos(config.data))


def examine(inspected: Inspected, most: int) -> dict[str, Any]:
    """Everything that takes no model, as JSON has it.

    Args:
        most: how many groups of duplicates are listed.
    """
    dataset = inspected.dataset
    channels, *image_size = dataset.train.images.shape[1:]
    counts = {
        part: np.bincount(one.labels, minlength=len(dataset.class_names)).tolist()
        for part, one in inspected.parts.items()
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
            {"name": name} | {part: counts[part][label] for part in counts}
            for label, name in enumerate(dataset.class_names)
        ],
        "pictures": _of_files(list(inspected.infos.values())),
        "duplicates": _duplicates(inspected, most),
    }


def _of_files(infos: Sequence[ImageInfo]) -> dict[str, Any] | None:
    """Sizes as height and width; the smallest and the largest by their area."""
    if not infos:
        return None
    sizes = Counter((info.height, info.width) for info in infos)
    by_area = sorted(sizes, key=lambda size: (size[0] * size[1], size))
    grey = sum(info.channels == 1 for info in infos)
    return {
        "count": len(infos),
        "sizes": len(sizes),
        "smallest": list(by_area[0]),
        "median": [
            statistics.median_low(info.height for info in infos),
            statistics.median_low(info.width for info in infos),
        ],
        "largest": list(by_area[-1]),
        "grey": grey,
        "colour": len(infos) - grey,
    }


def _duplicates(inspected: Inspected, most: int) -> dict[str, Any]:
    """Images that are equal in every pixel, once they are made fit.

    Returns:
        For each part how many of its images it has already; for each pair of parts how many images
        of one are in the other too; how many groups of equal images there are, how many of them
        with several labels, and the first of them: those over several parts, then those of several
        labels, then the largest.
    """
    places: dict[bytes, list[Place]] = {}
    for place, digest in _digests(inspected):
        places.setdefault(digest, []).append(place)
    groups = [group for group in places.values() if len(group) > 1]
    found: dict[str, Any] = dict.fromkeys(inspected.parts, 0)
    pairs = list(combinations(inspected.parts, 2))
    found |= {f"{second}_in_{first}": 0 for first, second in pairs}
    for group in groups:
        counts = Counter(part for part, _ in group)
        for part, count in counts.items():
            found[part] += count - 1
        for first, second in pairs:
            if first in counts:
                found[f"{second}_in_{first}"] += counts[second]

    def labels(group: list[Place]) -> int:
        return len({int(inspected.parts[part].labels[i]) for part, i in group})

    def parts(group: list[Place]) -> int:
        return len({part for part, _ in group})

    groups.sort(key=lambda group: (parts(group), labels(group), len(group)), reverse=True)
    return found | {
        "count": len(groups),
        "of_other_class": sum(labels(group) > 1 for group in groups),
        "groups": [[inspected.describe(place) for place in group] for group in groups[:most]],
    }


def _digests(inspected: Inspected) -> Iterator[tuple[Place, bytes]]:
    total = sum(len(part.images) for part in inspected.parts.values())
    with progress_bar("comparing images", total) as progress:
        for name, part in inspected.parts.items():
            position = 0
            for chunk in part.images.chunks():
                for image in chunk.numpy():
                    yield (name, position), hashlib.blake2b(image.data, digest_size=16).digest()
                    position += 1
                    progress.update()
