"""Write the images that the other programs train on: small ones, and photographs."""

from __future__ import annotations

import io
import shutil
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt
from photo_files import write_files
from PIL import Image

from gpu_cases import Save, Task

ARCHIVE = "cifar10-jpg.zip"
CLASSES = 10
PHOTO_SIZE = 256
"""height and width of a photograph's file"""
CROP_SIZE = 224
"""of what is cut out of it"""

Pixels = npt.NDArray[np.uint8]
Labels = npt.NDArray[np.int64]


def run(task: Task, save: Save) -> None:
    """Write all of them."""
    archive = Path(task.root) / ARCHIVE if task.root else None
    sizes = {"train": 200, "test": 100} if task.small else {"train": 50_000, "test": 10_000}
    if archive and archive.is_file():
        source = ARCHIVE
        parts = {part: read_archive(archive, part) for part in sizes}
        parts = {
            part: (pixels[: sizes[part]], labels[: sizes[part]])
            for part, (pixels, labels) in parts.items()
        }
    else:
        source = "made: a pattern of its class in noise"
        parts = {
            part: make_images(size, number) for number, (part, size) in enumerate(sizes.items())
        }
    write_set(task.images, parts)
    save(
        {
            "images": source,
            "image_counts": {part: len(labels) for part, (_, labels) in parts.items()},
        }
    )
    photos = 60 if task.small else 2560
    shutil.rmtree(task.photos, ignore_errors=True)
    task.photos.mkdir()
    write_files(task.photos, photos, CLASSES, photo_size(task))
    save({"photos": photos})
    side = crop_size(task)
    random = np.random.default_rng(0)
    write_set(
        task.pixels,
        {
            part: (
                random.integers(0, 256, (count, side, side, 3), dtype=np.uint8),
                np.arange(count) % CLASSES,
            )
            for part, count in (("train", photos), ("test", 20))
        },
    )
    save({"decoded": photos})


def photo_size(task: Task) -> int:
    """Return the height and width of a photograph's file."""
    return 48 if task.small else PHOTO_SIZE


def crop_size(task: Task) -> int:
    """Return the height and width at which photographs are trained on."""
    return 32 if task.small else CROP_SIZE


def read_archive(path: Path, part: str) -> tuple[Pixels, Labels]:
    """Return the images of a part of the archive, PART/CLASS/NUMBER.jpg, in a mixed order."""
    with zipfile.ZipFile(path) as archive:
        names = sorted(
            name
            for name in archive.namelist()
            if f"{part}/" in f"/{name}" and name.endswith(".jpg")
        )
        encoded = [archive.read(name) for name in names]
    classes = sorted({name.split("/")[-2] for name in names})
    order = np.random.default_rng(0).permutation(len(names))

    def decode(number: int) -> Pixels:
        with Image.open(io.BytesIO(encoded[number])) as image:
            return np.asarray(image.convert("RGB"))

    with ThreadPoolExecutor() as pool:
        pixels = np.stack(list(pool.map(decode, order)))
    labels = np.array([classes.index(names[number].split("/")[-2]) for number in order])
    return pixels, labels


def make_images(count: int, seed: int) -> tuple[Pixels, Labels]:
    """Return images that a net can learn: a coarse pattern for each class, moved, and noise."""
    random = np.random.default_rng(seed)
    patterns = (
        np.random.default_rng(1234).normal(0, 40, (CLASSES, 8, 8, 3)).repeat(4, 1).repeat(4, 2)
    )
    labels = random.integers(0, CLASSES, count)
    pixels = np.empty((count, 32, 32, 3), np.uint8)
    for number, label in enumerate(labels):
        moved = np.roll(patterns[label], random.integers(-2, 3, 2), (0, 1))
        pixels[number] = (128 + moved + random.normal(0, 40, moved.shape)).clip(0, 255)
    return pixels, labels


def write_set(folder: Path, parts: dict[str, tuple[Pixels, Labels]]) -> None:
    """Write a data set of four NumPy files."""
    folder.mkdir(exist_ok=True)
    for part, (pixels, labels) in parts.items():
        np.save(folder / f"set_{part}_features.npy", pixels)
        np.save(folder / f"set_{part}_targets.npy", labels.astype(np.int64))
