"""Plan what listed picture files become: their parts and order, one size, channels and greys."""

from __future__ import annotations

import hashlib
import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

from trainer.base.errors import UserError
from trainer.config.schema import DataConfig, ResizeRule
from trainer.data.pictures.decoding import ImageInfo
from trainer.data.pictures.high_bit_depth import GreyRange
from trainer.data.sources.picture_index import PictureFile

LabelledFiles = Sequence[tuple[str, int]]
"""names of files, relative to a root, and the numbers of their classes"""

LONGEST_SIDE = 128
"""in pixels, if nobody has chosen a size"""

FORMAT = 3
"""of the cache: the index, the plan and the pixels"""

_TEST_ONE_IN = 5
"""one training picture in this many is kept for the test if there are no test pictures"""


@dataclass(frozen=True)
class PictureList:
    """The picture files that a source has found.

    Args:
        root: the folder of the files.
        class_names: sorted.
        parts: the files of train, validation and test, as far as they are there, in this order;
            within a part sorted by class, then by name.
        makes_test: whether the test pictures are to be taken from the training pictures.
        warnings: what was left out, for the user.
    """

    root: Path
    class_names: tuple[str, ...]
    parts: Mapping[str, LabelledFiles]
    makes_test: bool = False
    warnings: tuple[str, ...] = ()

    def files(self) -> list[str]:
        """Return the names of all files."""
        return [name for labelled in self.parts.values() for name, _ in labelled]


@dataclass(frozen=True)
class Target:
    """What pictures are made into.

    Args:
        image_size: height and width in pixels.
        channels: 1 or 3.
        grey_range: the values of pictures with more than 8 bits a channel that become black and
            white.
        resize: how pictures of another shape are made to fit.
    """

    image_size: tuple[int, int]
    channels: int
    grey_range: GreyRange | None
    resize: ResizeRule


@dataclass(frozen=True)
class Plan:
    """What is decoded, and how.

    Args:
        parts: the files that are pictures, in the order of their images.
        target: what they are made into.
        key: names the pixels: a hash of everything that decides on them.
    """

    parts: Mapping[str, LabelledFiles]
    target: Target
    key: str


def make_plan(config: DataConfig, pictures: PictureList, files: Mapping[str, PictureFile]) -> Plan:
    """Plan what the listed files become.

    Args:
        files: what each of them contains.

    Raises:
        UserError: a class has too few pictures.
    """
    import PIL
    from PIL import features

    by_class = {part: _by_class(pictures, part, files) for part in pictures.parts}
    if pictures.makes_test:
        by_class["train"], by_class["test"] = _split_off_test(by_class["train"], files)
    parts = {part: _take_turns(classes) for part, classes in by_class.items()}
    first = [files[name].info for name, _ in next(iter(parts.values()))]
    target = choose_target(config, [info for info in first if info])
    rows = {
        part: [(name, label, files[name].sha256) for name, label in labelled]
        for part, labelled in parts.items()
    }
    versions = (FORMAT, PIL.__version__, features.version("jpg"))
    described = [*versions, pictures.class_names, rows, str(target)]
    key = hashlib.sha256(json.dumps(described).encode()).hexdigest()[:32]
    return Plan(parts, target, key)


def choose_target(config: DataConfig, infos: Sequence[ImageInfo]) -> Target:
    """Choose size, channels and greys as configured, otherwise by the training pictures.

    The size is the median of their heights and that of their widths (the lower of two middle ones),
    shrunk together if the longer one is beyond `LONGEST_SIDE`. The images are grey if all are
    stored as grey. The lowest and the highest value of all pictures with more than 8 bits a channel
    become black and white.
    """
    height = statistics.median_low(info.height for info in infos)
    width = statistics.median_low(info.width for info in infos)
    shrink = min(1.0, LONGEST_SIDE / max(height, width))
    size = config.height_and_width or [max(1, round(side * shrink)) for side in (height, width)]
    channels = config.channels or max(info.channels for info in infos)
    return Target((size[0], size[1]), channels, _grey_range(config, infos), config.resize)


def _grey_range(config: DataConfig, infos: Sequence[ImageInfo]) -> GreyRange | None:
    if config.grey_range is not None:
        return (config.grey_range[0], config.grey_range[1]) if config.grey_range else None
    lowest = [info.lowest for info in infos if info.lowest is not None]
    highest = [info.highest for info in infos if info.highest is not None]
    return (min(lowest), max(highest)) if lowest else None


def _by_class(
    pictures: PictureList, part: str, files: Mapping[str, PictureFile]
) -> list[list[str]]:
    """Return the files of each class that are pictures; every class must have some."""
    classes: list[list[str]] = [[] for _ in pictures.class_names]
    for name, label in pictures.parts[part]:
        if files[name].info:
            classes[label].append(name)
    for name, label in pictures.parts[part]:
        if not classes[label]:
            raise UserError(
                f"data.root: no file in {(pictures.root / name).parent} can be read: "
                f"{files[name].error}"
            )
    return classes


def _take_turns(by_class: list[list[str]]) -> LabelledFiles:
    """Return the first file of every class, then the second of every class, and so on.

    So the first ones, which are what `data.train_size` and the like take, are of all classes.
    """
    labelled = [[(name, label) for name in names] for label, names in enumerate(by_class)]
    return [pair for turn in zip_longest(*labelled) for pair in turn if pair is not None]


def _split_off_test(
    by_class: list[list[str]], files: Mapping[str, PictureFile]
) -> tuple[list[list[str]], list[list[str]]]:
    """Divide pictures into those to train on and those to test on, a class at a time.

    A picture's content decides, not a seed: runs of all seeds are tested on the same pictures,
    equal files stay together, and when a set grows few pictures change sides.

    Raises:
        UserError: a class has too few.
    """
    train, test = [], []
    for names in by_class:
        # Hashed a second time, as somebody may have sorted files into folders by the first hash.
        keys = {
            name: hashlib.sha256(f"test/{files[name].sha256}".encode()).hexdigest()
            for name in names
        }
        distinct = sorted(keys.values())
        last = distinct[max(1, round(len(names) / _TEST_ONE_IN)) - 1]
        test.append([name for name in names if keys[name] <= last])
        train.append([name for name in names if keys[name] > last])
        if not train[-1]:
            raise UserError(
                f"data.root: there is no folder test, and of the {len(names)} pictures in "
                f"{names[0].rpartition('/')[0]} none would be left to train on; at least 2 must "
                "differ"
            )
    return train, test
