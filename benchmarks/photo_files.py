"""Make many small JPEG files, to measure how a run starts with them.

    python benchmarks/photo_files.py FOLDER [--count N] [--classes N] [--shards N] [--size PIXELS]

Writes FOLDER/files/train/CLASS/NUMBER.jpg and, with the same pictures, FOLDER/shards/train-*.tar in
WebDataset's form. Noise at two scales makes some distinct images; a comment in each file (JPEG's
segment COM) makes all contents different, as those of photographs are.
"""

from __future__ import annotations

import argparse
import io
import tarfile
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
from PIL import Image

_DISTINCT = 256


def pictures(count: int, classes: int, size: int) -> Iterator[tuple[int, int, bytes]]:
    """Yield the number, class and JPEG bytes of `count` pictures of `size` x `size` pixels."""
    random = np.random.default_rng(0)
    images = []
    for _ in range(_DISTINCT):
        coarse = Image.fromarray(random.integers(0, 256, (4, 4, 3), dtype=np.uint8))
        pixels = np.array(coarse.resize((size, size), Image.Resampling.BICUBIC)).astype(np.int16)
        pixels += random.integers(-8, 9, pixels.shape, dtype=np.int16)
        stream = io.BytesIO()
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(stream, "JPEG", quality=85)
        images.append(stream.getvalue())
    for number in range(count):
        image = images[number % _DISTINCT]
        comment = b"\xff\xfe\x00\x0a" + number.to_bytes(8, "big")
        yield number, number % classes, image[:2] + comment + image[2:]


def write_files(folder: Path, count: int, classes: int, size: int) -> None:
    """Write each picture into a file of its own, in the folder of its class."""
    places = [folder / "train" / f"class {label:04}" for label in range(classes)]
    for place in places:
        place.mkdir(parents=True)
    for number, label, content in pictures(count, classes, size):
        (places[label] / f"{number:07}.jpg").write_bytes(content)


def write_shards(folder: Path, count: int, classes: int, size: int, shards: int) -> None:
    """Write the pictures into tar files, each picture followed by the name of its class."""
    folder.mkdir(parents=True)
    left = pictures(count, classes, size)
    for shard in range(shards):
        with tarfile.open(folder / f"train-{shard:06}.tar", "w") as tar:
            of_shard = count * (shard + 1) // shards - count * shard // shards
            for number, label, content in islice(left, of_shard):
                for ending, member in (("jpg", content), ("cls", b"%d" % label)):
                    entry = tarfile.TarInfo(f"{number:07}.{ending}")
                    entry.size = len(member)
                    tar.addfile(entry, io.BytesIO(member))


def main() -> None:
    """Write both forms."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--count", type=int, default=1_000_000)
    parser.add_argument("--classes", type=int, default=1000)
    parser.add_argument("--shards", type=int, default=100)
    parser.add_argument("--size", type=int, default=32)
    asked = parser.parse_args()
    write_files(asked.folder / "files", asked.count, asked.classes, asked.size)
    write_shards(asked.folder / "shards", asked.count, asked.classes, asked.size, asked.shards)


if __name__ == "__main__":
    main()
