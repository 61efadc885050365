"""CIFAR-10 and CIFAR-100 in their binary versions, which need no unpickling.

A file is records of one length: CIFAR-10's label, or CIFAR-100's coarse and fine label, each a
byte, and then 32 x 32 pixels of red, of green and of blue (A. Krizhevsky: Learning Multiple Layers
of Features from Tiny Images, 2009).
"""

from __future__ import annotations

import tarfile
import zlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from trainer.base.errors import UserError
from trainer.data.raw_images import memory_limit_error
from trainer.data.sources.known_sets.published import ArraySet, Files, Parts, PublishedFile
from trainer.data.sources.source_data import LabelledImages

_IMAGE_SHAPE = (3, 32, 32)
_PIXELS = 3 * 32 * 32


def _read(
    files: Files, limit_bytes: float, names: dict[str, tuple[str, ...]], labels: int
) -> Parts:
    """Read the parts from their files, or from those in the archive.

    Args:
        names: the files of each part.
        labels: how many of them a record has; the last is read.
    """
    wanted = {name: part for part, of_part in names.items() for name in of_part}
    size_bytes = dict.fromkeys(names, 0)
    records: dict[str, npt.NDArray[np.uint8]] = {}
    where: dict[str, str] = {}
    for name, file, content in _read_contents(files, frozenset(wanted)):
        if not content or len(content) % (labels + _PIXELS):
            raise UserError(
                f"{file}: {len(content)} bytes are no whole number of records of "
                f"{labels + _PIXELS} bytes"
            )
        part = wanted[name]
        size_bytes[part] += len(content)
        if size_bytes[part] > limit_bytes:
            problem = "are stored with their labels between them"
            raise memory_limit_error(Path(file), size_bytes[part], limit_bytes, problem)
        records[name] = np.frombuffer(content, np.uint8).reshape(-1, labels + _PIXELS)
        where.setdefault(part, file)
    parts = {}
    for part, of_part in names.items():
        in_order = [records.pop(name) for name in of_part]
        images = np.empty((sum(map(len, in_order)), *_IMAGE_SHAPE), np.uint8)
        np.concatenate([rows[:, labels:] for rows in in_order], out=images.reshape(-1, _PIXELS))
        parts[part] = LabelledImages(
            images=images,
            labels=np.concatenate([rows[:, labels - 1] for rows in in_order]).astype(np.int64),
            images_file=where[part],
            labels_file=where[part],
        )
    return parts


def _read_contents(files: Files, names: frozenset[str]) -> Iterator[tuple[str, str, bytes]]:
    """Yield the files, each with its name and its name for messages, in any order."""
    if names <= files.keys():
        for name in sorted(names):
            yield name, str(files[name]), files[name].read_bytes()
        return
    (archive,) = files.values()
    found = set()
    try:
        # As a stream: to go back in a compressed file is to decompress it again.
        with tarfile.open(archive, "r|*") as members:
            for member in members:
                if member.name in names and (file := members.extractfile(member)):
                    found.add(member.name)
                    yield member.name, f"{archive}: {member.name}", file.read()
    except (tarfile.TarError, EOFError, zlib.error, OSError) as error:
        raise UserError(f"{archive}: cannot be read ({error})") from error
    if lacking := sorted(names - found):
        raise UserError(f"{archive}: has no file {lacking[0]}")


_CIFAR10 = "cifar-10-batches-bin"
_CIFAR100 = "cifar-100-binary"

# SHA-256 of the archives as in TensorFlow Datasets' list, SHA-1 of the files in them as in MXNet's.
CIFAR10 = ArraySet(
    name="cifar10",
    class_names=(
        "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
    ),
    files=(
        PublishedFile(
            "cifar-10-binary.tar.gz",
            "sha256:c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
        ),
    ),
    unpacked=(
        PublishedFile(
            f"{_CIFAR10}/data_batch_1.bin", "sha1:aadd24acce27caa71bf4b10992e9e7b2d74c2540"
        ),
        PublishedFile(
            f"{_CIFAR10}/data_batch_2.bin", "sha1:c0ba65cce70568cd57b4e03e9ac8d2a5367c1795"
        ),
        PublishedFile(
            f"{_CIFAR10}/data_batch_3.bin", "sha1:1dd00a74ab1d17a6e7d73e185b69dbf31242f295"
        ),
        PublishedFile(
            f"{_CIFAR10}/data_batch_4.bin", "sha1:aab85764eb3584312d3c7f65fd2fd016e36a258e"
        ),
        PublishedFile(
            f"{_CIFAR10}/data_batch_5.bin", "sha1:26e2849e66a845b7f1e4614ae70f4889ae604628"
        ),
        PublishedFile(
            f"{_CIFAR10}/test_batch.bin", "sha1:67eb016db431130d61cd03c7ad570b013799c88c"
        ),
    ),
    mirrors=("https://www.cs.toronto.edu/~kriz/",),
    read=partial(
        _read,
        names={
            "train": tuple(f"{_CIFAR10}/data_batch_{number}.bin" for number in range(1, 6)),
            "test": (f"{_CIFAR10}/test_batch.bin",),
        },
        labels=1,
    ),
)  # fmt: skip

CIFAR100 = ArraySet(
    name="cifar100",
    class_names=(
        "apple", "aquarium_fish", "baby", "bear", "beaver", "bed", "bee", "beetle", "bicycle",
        "bottle", "bowl", "boy", "bridge", "bus", "butterfly", "camel", "can", "castle",
        "caterpillar", "cattle", "chair", "chimpanzee", "clock", "cloud", "cockroach", "couch",
        "crab", "crocodile", "cup", "dinosaur", "dolphin", "elephant", "flatfish", "forest", "fox",
        "girl", "hamster", "house", "kangaroo", "keyboard", "lamp", "lawn_mower", "leopard",
        "lion", "lizard", "lobster", "man", "maple_tree", "motorcycle", "mountain", "mouse",
        "mushroom", "oak_tree", "orange", "orchid", "otter", "palm_tree", "pear", "pickup_truck",
        "pine_tree", "plain", "plate", "poppy", "porcupine", "possum", "rabbit", "raccoon", "ray",
        "road", "rocket", "rose", "sea", "seal", "shark", "shrew", "skunk", "skyscraper", "snail",
        "snake", "spider", "squirrel", "streetcar", "sunflower", "sweet_pepper", "table", "tank",
        "telephone", "television", "tiger", "tractor", "train", "trout", "tulip", "turtle",
        "wardrobe", "whale", "willow_tree", "wolf", "woman", "worm",
    ),
    files=(
        PublishedFile(
            "cifar-100-binary.tar.gz",
            "sha256:58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec",
        ),
    ),
    unpacked=(
        PublishedFile(f"{_CIFAR100}/train.bin", "sha1:e207cd2e05b73b1393c74c7f5e7bea451d63e08e"),
        PublishedFile(f"{_CIFAR100}/test.bin", "sha1:8fb6623e830365ff53cf14adec797474f5478006"),
    ),
    mirrors=("https://www.cs.toronto.edu/~kriz/",),
    read=partial(
        _read,
        names={"train": (f"{_CIFAR100}/train.bin",), "test": (f"{_CIFAR100}/test.bin",)},
        labels=2,
    ),
)  # fmt: skip
