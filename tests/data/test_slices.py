"""The values by which images are divided into slices, wherever the images are."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.data import archives, picture_tables
from trainer.base.errors import UserError
from trainer.config.schema import DataConfig
from trainer.data import slices
from trainer.data.loading import load
from trainer.data.sources import reading

pytestmark = pytest.mark.usefixtures("caches")


def slices_of(root: Path, columns: list[str], **keys: Any) -> dict[str, Counter[str]]:
    """Return how many test images have each value."""
    config = DataConfig(root=str(root), slice_columns=columns, **keys)
    reading.prepare(config)
    slices.check(config)
    found = slices.slices_of_test(config, 0, load(config, 0).test)
    return {name: Counter(values) for name, values in found.items()}


def test_columns_of_shards(tmp_path: Path) -> None:
    labels = ["cat", "dog"] * 10
    cameras = ["old", "new", "new", None] * 5
    for part in ("train", "test"):
        for number in range(2):
            path = tmp_path / f"{part}-{number}.parquet"
            first = 100 * (part == "test") + 20 * number
            picture_tables.write_shard(path, labels, first=first, camera=cameras)
    found = slices_of(tmp_path, ["camera"], name="folder")
    assert found == {"camera": Counter({"new": 20, "old": 10, "(nothing)": 10})}


def test_columns_of_a_table_whose_pictures_are_in_an_archive(tmp_path: Path) -> None:
    rows = picture_tables.write_rows(tmp_path / "own")
    archives.pack(tmp_path / "own" / "photos", tmp_path / "own" / "photos.zip", "photos/")
    shutil.rmtree(tmp_path / "own" / "photos")
    table = picture_tables.write_csv(tmp_path / "own", rows)
    found = slices_of(table, ["group", "size"], name="table")
    assert found["group"] == Counter({f"film {number}": 2 for number in range(6, 10)})
    assert found["size"] == Counter({"12 x 10": 8})


@pytest.mark.parametrize("packed", ["own.zip", "own.tar", None])
def test_many_sizes_are_divided_into_quarters(tmp_path: Path, packed: str | None) -> None:
    for part in ("train", "test"):
        for label in ("cat", "dog"):
            folder = tmp_path / "own" / part / label
            folder.mkdir(parents=True)
            for number in range(12):
                pixels = np.full((10 + number, 30), 10 * number, np.uint8)
                Image.fromarray(pixels).save(folder / f"{number}.png")
    root = tmp_path / "own"
    if packed:
        root = archives.pack(root, tmp_path / packed)
    keys = {"name": "folder", "image_size": [8, 8], "resize": "stretch"}
    found = slices_of(root, ["size", "brightness"], **keys)
    assert found["size"] == Counter(
        {f"shorter side {low} to {low + 2}": 6 for low in (10, 13, 16, 19)}
    )
    assert found["brightness"] == Counter(
        {f"mean {low} to {low + 20}": 6 for low in (0, 30, 60, 90)}
    )


def test_a_column_that_is_not_there_is_named(tmp_path: Path) -> None:
    for part in ("train", "test"):
        members = [(f"{n}.png", archives.picture(n)) for n in range(4)]
        members += [(f"{n}.cls", str(n % 2).encode()) for n in range(4)]
        archives.write_tar(tmp_path / f"{part}-0.tar", sorted(members))
    with pytest.raises(UserError, match=r"data\.slice_columns: there is no column camera"):
        slices_of(tmp_path, ["camera"], name="folder")
