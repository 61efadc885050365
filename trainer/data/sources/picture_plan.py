"""Plan what listed pictures become: their parts and order, one size, channels and greys."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from trainer.base.errors import UserError
from trainer.config.schema import DataConfig
from trainer.data import label_matrix
from trainer.data.pictures import formats
from trainer.data.pictures.high_bit_depth import GreyRange
from trainer.data.pictures.picture_set import KnownPictures, ListedPictures
from trainer.data.pictures.resizing import Fit, fit_of
from trainer.data.sources import equal_pictures, picture_groups
from trainer.data.sources.picture_index import Contents

Indices = npt.NDArray[np.int64]

LONGEST_SIDE = 128
"""in pixels, if nobody has chosen a size"""

FORMAT = 5
"""of the cache: the index, the plan and the pixels"""

_TEST_ONE_IN = 5
"""one training picture in this many is kept for the test if there are no test pictures"""


@dataclass(frozen=True, eq=False)
class PictureList:
    """The pictures that a source has found.

    Args:
        root: the folder, archive or table that they were found in, for messages.
        class_names: sorted.
        parts: the pictures of train, validation and test, as far as they are there, in this order;
            those of a folder or archive within a part sorted by class, then by name.
        kind: what `root` is.
        makes_test: whether the test pictures are to be taken from the training pictures.
        warnings: what was left out, for the user.
    """

    root: Path
    class_names: tuple[str, ...]
    parts: Mapping[str, ListedPictures]
    kind: Literal["folder", "archive", "table"] = "folder"
    makes_test: bool = False
    warnings: tuple[str, ...] = ()

    def __len__(self) -> int:
        return sum(map(len, self.parts.values()))


@dataclass(frozen=True)
class Target:
    """What pictures are made into.

    Args:
        image_size: height and width in pixels.
        channels: 1, 3, or as many as each picture has.
        grey_range: the values of pictures with more than 8 bits a channel that become black and
            white.
        resize: how pictures of another shape are made to fit.
    """

    image_size: tuple[int, int]
    channels: int
    grey_range: GreyRange | None
    resize: Fit

    def describe(self) -> str:
        """Return it in words."""
        height, width = self.image_size
        return f"{height} x {width} pixels and {self.channels} channel{'s' * (self.channels > 1)}"


@dataclass(frozen=True, eq=False)
class Plan:
    """What is decoded, and how.

    Args:
        parts: the files that are pictures, in the order of their images.
        target: what they are made into.
        key: names the pixels: a hash of everything that decides on them.
    """

    parts: Mapping[str, KnownPictures]
    target: Target
    key: str


def make_plan(config: DataConfig, pictures: PictureList, contents: Mapping[str, Contents]) -> Plan:
    """Plan what the listed pictures become.

    Args:
        contents: what the pictures of each part contain.

    Raises:
        UserError: a class has too few pictures, or the groups of pictures are wrong.
    """
    grouped = picture_groups.name_groups(pictures.parts, pictures.class_names, config.groups)
    pictures = replace(pictures, parts=grouped)
    if config.multi_label:
        merged, contents = equal_pictures.merge(grouped, contents, len(pictures.class_names))
        pictures = replace(pictures, parts=merged)
    # Of each part the rows of its list.
    rows = {part: _readable(pictures, part, contents[part]) for part in pictures.parts}
    origins = {part: part for part in rows}
    if pictures.makes_test:
        rows["train"], rows["test"] = _split_off_test(pictures, rows["train"], contents["train"])
        origins["test"] = "train"
    parts = {}
    for part, origin in origins.items():
        listed, known = pictures.parts[origin], contents[origin]
        order = rows[part][_take_turns(label_matrix.strata(listed.labels)[rows[part]])]
        parts[part] = KnownPictures(listed.select(order), known.sizes[order], known.sha256[order])
        rows[part] = order
    first = next(iter(parts))
    _check_channels(
        config, parts, {part: contents[of].channels for part, of in origins.items()}, rows
    )
    target = choose_target(config, contents[first].select(rows[first]))
    return Plan(parts, target, _name_pixels(pictures, parts, target))


def choose_target(config: DataConfig, contents: Contents) -> Target:
    """Choose size, channels and greys as configured, otherwise by the training pictures.

    The size is the median of their heights and that of their widths (the lower of two middle ones),
    shrunk together if the longer one is beyond `LONGEST_SIDE`. The images are grey if all are
    stored as grey; of arrays of other channels they have as many. The lowest and the highest value
    of all pictures with more than 8 bits a channel become black and white.
    """
    middle = (len(contents) - 1) // 2
    height, width = np.partition(contents.sizes, middle, axis=0)[middle].tolist()
    shrink = min(1.0, LONGEST_SIDE / max(height, width))
    size = config.height_and_width or [max(1, round(side * shrink)) for side in (height, width)]
    channels = config.channels or int(contents.channels.max())
    return Target((size[0], size[1]), channels, _grey_range(config, contents), fit_of(config))


def _check_channels(
    config: DataConfig,
    parts: Mapping[str, KnownPictures],
    channels: Mapping[str, npt.NDArray[np.int16]],
    rows: Mapping[str, Indices],
) -> None:
    """Make sure that all pictures can have the same channels: grey and colours can, no others."""
    examples: dict[int, str] = {}
    for part, known in parts.items():
        numbers, first = np.unique(channels[part][rows[part]], return_index=True)
        for number, row in zip(numbers.tolist(), first.tolist(), strict=True):
            examples.setdefault(number, str(known.listed.places[row]))
    wanted = {1, 3} if config.channels in (1, 3) else {config.channels or next(iter(examples))}
    wanted |= {1, 3} if wanted & {1, 3} else set()
    if examples.keys() - wanted:
        found = ", ".join(f"{number} in {name}" for number, name in sorted(examples.items()))
        asked = "" if config.channels is None else f" (data.channels asks for {config.channels})"
        raise UserError(
            f"data.root: the pictures have different channels{asked}: {found}; only grey and "
            "colours are made the same, others must all have as many"
        )


def _grey_range(config: DataConfig, contents: Contents) -> GreyRange | None:
    if config.grey_range is not None:
        return (config.grey_range[0], config.grey_range[1]) if config.grey_range else None
    ranges = contents.value_ranges[~np.isnan(contents.value_ranges[:, 0])]
    return (float(ranges[:, 0].min()), float(ranges[:, 1].max())) if len(ranges) else None


def _readable(pictures: PictureList, part: str, contents: Contents) -> Indices:
    """Return the rows of a part that are pictures; every class that is listed must have some."""
    listed = pictures.parts[part]
    readable = np.flatnonzero(contents.is_picture)
    if (lost := label_matrix.first_lacking(listed.labels, readable)) is not None:
        row = int(label_matrix.with_label(listed.labels, lost)[0])
        place = listed.places[row]
        where = f"file in {place.file.parent}"
        if pictures.kind != "folder":
            where = f"picture of class {pictures.class_names[lost]} in {part}"
        raise UserError(f"data.root: no {where} can be read: {contents.errors[row]}")
    return readable


def _take_turns(labels: npt.NDArray[np.int64]) -> Indices:
    """Return the first picture of every class, then the second of every class, and so on.

    So the first ones, which are what `data.train_size` and the like take, are of all classes.
    """
    by_class = np.argsort(labels, kind="stable")
    counts = np.bincount(labels)
    turns = np.empty(len(labels), np.int64)
    turns[by_class] = np.arange(len(labels)) - np.repeat(np.cumsum(counts) - counts, counts)
    return np.lexsort((labels, turns))


def _split_off_test(
    pictures: PictureList, rows: Indices, contents: Contents
) -> tuple[Indices, Indices]:
    """Divide pictures into those to train on and those to test on, a class at a time.

    A picture's content decides, not a seed: runs of all seeds are tested on the same pictures,
    equal files stay together, and when a set grows few pictures change sides. Where there are
    groups, these are divided.

    Args:
        rows: the training pictures.

    Returns:
        The rows of both.

    Raises:
        UserError: a class has too few.
    """
    listed = pictures.parts["train"]
    keys = _draw_keys(contents.sha256[rows])
    if listed.groups is not None:
        is_test = _choose_test_groups(pictures, rows, keys)
        return rows[~is_test], rows[is_test]
    labels = listed.labels[rows]
    if labels.ndim == 2:
        is_test, whole = _choose_test_of_several(labels, keys), None
    else:
        is_test, whole = _choose_test(label_matrix.strata(labels), keys, least=1)
    if whole is not None or not is_test.any():
        of_class = np.arange(len(rows)) if whole is None else whole
        where = str(pictures.root) if whole is None else _where(pictures, rows[whole.min()])
        raise UserError(
            f"data.root: there is no {'part' if pictures.kind == 'table' else 'folder'} test, "
            f"and of the {len(of_class)} pictures in {where} none would be left to train on; at "
            "least 2 must differ"
        )
    return rows[~is_test], rows[is_test]


def _choose_test(
    classes: Indices, keys: npt.NDArray[np.uint64], least: int
) -> tuple[npt.NDArray[np.bool_], Indices | None]:
    """Return which pictures are tested on, and those of the first class that has too few.

    Args:
        classes: one for each picture.
        keys: by `_draw_keys`; equal pictures have equal keys.
        least: how many of a class are tested on, if it has few.
    """
    is_test, too_few = np.zeros(len(classes), bool), None
    # By class, then by key.
    order = np.lexsort((*keys.T[::-1], classes))
    for begin, end in pairwise([0, *np.cumsum(np.bincount(classes)).tolist()]):
        of_class, count = order[begin:end], end - begin
        last = max(least, round(count / _TEST_ONE_IN)) if count else 0
        while 0 < last < count and (keys[of_class[last]] == keys[of_class[last - 1]]).all():
            last += 1
        if last < count:
            is_test[of_class[:last]] = True
        elif count and too_few is None:
            too_few = of_class
    return is_test, too_few


def _choose_test_of_several(
    labels: label_matrix.Labels, keys: npt.NDArray[np.uint64]
) -> npt.NDArray[np.bool_]:
    """Return which pictures are tested on, of each stratum its share; arguments as above."""
    _, first, places = np.unique(keys[:, 0], return_index=True, return_inverse=True)
    strata = label_matrix.strata(labels)[first][places]  # so that equal pictures stay together
    is_test = _choose_test(strata, keys, least=0)[0]
    return is_test if is_test.any() else _choose_test(np.zeros_like(strata), keys, least=1)[0]


def _choose_test_groups(
    pictures: PictureList, rows: Indices, keys: npt.NDArray[np.uint64]
) -> npt.NDArray[np.bool_]:
    """Return which of the training pictures in `rows` are tested on, whole groups."""
    listed = pictures.parts["train"].select(rows)
    assert listed.groups is not None
    groups = np.unique(list(listed.groups), return_inverse=True)[1]
    groups = picture_groups.join_groups(groups, keys[:, 0])
    ranks = np.empty(len(rows), np.int64)
    ranks[np.lexsort(keys.T[::-1])] = np.arange(len(rows))
    strata = label_matrix.strata(listed.labels)
    counts = np.bincount(strata, minlength=len(pictures.class_names))
    wanted = np.round(counts / _TEST_ONE_IN).astype(np.int64).clip(min=1)
    is_test = picture_groups.choose_test_groups(strata, groups, ranks, wanted)
    label = label_matrix.first_lacking(listed.labels, ~is_test)
    if label is None and (listed.labels.ndim == 1 or not is_test.any()):
        label = label_matrix.first_lacking(listed.labels, is_test)
    if label is not None:
        raise UserError(
            f"data.groups: there is no {'part' if pictures.kind == 'table' else 'folder'} test, "
            f"and the groups cannot be divided so that class {pictures.class_names[label]} is on "
            "both sides; its pictures must be of at least 2 groups, or make test/ yourself"
        )
    return is_test


def _draw_keys(sha256: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint64]:
    """Return what decides whether pictures are tested on: (n, 4), compared from the first on.

    It is a second hash, as somebody may have sorted files into folders by the first one.
    """
    digests = [hashlib.sha256(f"test/{one.tobytes().hex()}".encode()).digest() for one in sha256]
    return np.frombuffer(b"".join(digests), ">u8").reshape(-1, 4).astype(np.uint64)


def _where(pictures: PictureList, row: int) -> str:
    """Say where the pictures of the class of a training picture lie."""
    listed = pictures.parts["train"]
    if pictures.kind == "folder":
        return listed.places.names[row].rpartition("/")[0]
    return f"class {pictures.class_names[int(listed.labels[row])]}"


def _name_pixels(pictures: PictureList, parts: Mapping[str, KnownPictures], target: Target) -> str:
    """Return a hash of everything that decides on the images, their order and their names."""
    head = [FORMAT, *formats.decoder_versions(), pictures.class_names, list(parts), str(target)]
    digest = hashlib.sha256(json.dumps(head).encode())
    for known in parts.values():
        listed = known.listed
        digest.update(f"/{len(known)}/".encode())
        digest.update("\0".join(listed.places.names).encode())
        digest.update(known.sha256.data)
        digest.update(listed.labels.astype("<i8").data)
    return digest.hexdigest()[:32]
