"""What the readers of the pages have: pictures, arrays, tables and a net of their own."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
from PIL import Image

from tests.conftest import REPOSITORY

FOLDERS = ("my_pictures", "my_photos", "photos", "pictures", "scans", "more_pictures")
FILES = ("new.jpg", "shirt.jpg", "mistake.jpg", "boot.png", "my_coat.png", "my_shoe.jpg")
CLASSES = ("coat", "shoe")
SHAPE = (40, 48, 3)


def write_all(folder: Path) -> None:
    """Write all of them into a folder."""
    random = np.random.default_rng(0)
    for name in FOLDERS:
        draw_classes(folder / name, random)
    for name in FILES:
        shutil.copy(folder / "photos" / "test" / "coat" / "s90_0.png", folder / name)
    write_arrays(folder / "my_folder", "own", 8, random)
    write_arrays(folder / "mnist", "mnist", 28, random)
    write_tables(folder)
    readme = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    section = readme[readme.index("## Your own model") :]
    (folder / "my_net.py").write_text(section.split("```python\n")[1].split("```")[0])


def draw_classes(folder: Path, random: np.random.Generator) -> None:
    """Two classes for training and test, four pictures of each subject `s1` and so on."""
    for part, first, subjects in (("train", 0, 12), ("test", 90, 4)):
        for number, name in enumerate(CLASSES):
            (folder / part / name).mkdir(parents=True)
            for subject in range(first + number, first + 2 * subjects, 2):
                for picture in range(4):
                    pixels = random.integers(0, 256, SHAPE, np.uint8)
                    pixels[10:30, 10:30, number] = 255
                    file = folder / part / name / f"s{subject}_{picture}.png"
                    Image.fromarray(pixels).save(file)


def write_arrays(folder: Path, name: str, side: int, random: np.random.Generator) -> None:
    """Ten classes of square images, as four .npy files."""
    folder.mkdir()
    for part, images in (("train", 1000), ("test", 100)):
        pixels = random.integers(0, 256, (images, side, side), np.uint8)
        np.save(folder / f"{name}_{part}_features.npy", pixels)
        np.save(folder / f"{name}_{part}_targets.npy", np.arange(images) % 10)


def write_tables(folder: Path) -> None:
    """my_pictures/labels.csv, photos.csv with several labels, and shards in my_dataset."""
    lines, several = ["file,label,part,camera"], ["file,label,part"]
    shards: dict[str, list[dict[str, object]]] = {"train": [], "test": []}
    pictures = sorted((folder / "my_pictures").glob("*/*/*.png"))
    for place, path in enumerate(pictures):
        part, name, _ = path.parts[-3:]
        lines.append(f"{part}/{name}/{path.name},{name},{part},{'new' if place % 2 else 'old'}")
        labels = "coat|shoe" if place % 3 == 0 else name
        several.append(f"my_pictures/{part}/{name}/{path.name},{labels},{part}")
        picture = {"bytes": path.read_bytes(), "path": path.name}
        shards[part].append({"image": picture, "label": name})
    (folder / "my_pictures" / "labels.csv").write_text("\n".join(lines))
    (folder / "photos.csv").write_text("\n".join(several))
    (folder / "my_dataset" / "data").mkdir(parents=True)
    for part, rows in shards.items():
        table = pyarrow.Table.from_pylist(rows)
        file = folder / "my_dataset" / "data" / f"{part}-00000-of-00001.parquet"
        pyarrow.parquet.write_table(table, file)
