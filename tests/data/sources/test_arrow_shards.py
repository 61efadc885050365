"""Tables stored by columns, Parquet and Arrow, as the Hugging Face hub and `datasets` keep them."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from tests.data.picture_folders import write_pictures
from tests.data.picture_tables import png, prepared, write_shard
from trainer.base.errors import UserError
from trainer.config.schema import DataConfig
from trainer.data.sources import arrow_shards, picture_blob, reading, table
from trainer.data.sources.download import cache_folder

pytestmark = pytest.mark.usefixtures("caches")

TURNS = [0, 1] * 10
NAMES = ("dog", "cat")


def pictures_of(path: Path, **keys: Any) -> dict[str, bytes]:
    """Return the bytes of all listed pictures, by name."""
    found = table.list_pictures(path, DataConfig(name="table", root=str(path), **keys))
    return {
        name: place.read()
        for part in found.parts.values()
        for name, place in zip(part.places.names, part.places, strict=True)
    }


@pytest.mark.parametrize("name", ["a.parquet", "stream.arrow", "file.arrow"])
def test_the_pictures_inside_are_read_at_random(tmp_path: Path, name: str) -> None:
    path = write_shard(tmp_path / name, TURNS, NAMES)
    found = pictures_of(path)
    assert found == {f"{name}/{row}/{row}.png": png(row) for row in range(20)}
    data = prepared(path)
    assert data.class_names == NAMES  # as the schema numbers them
    assert (len(data.train), len(data.validation), len(data.test)) == (14, 2, 4)


def test_formats_and_kinds_of_columns_give_the_same_images(tmp_path: Path) -> None:
    texts = [NAMES[label] for label in TURNS]
    binary = pa.array([png(row) for row in range(20)], pa.large_binary())
    (tmp_path / "photos").mkdir()
    for row in range(20):
        (tmp_path / "photos" / f"{row}.png").write_bytes(png(row))
    struct = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    paths = [f"photos/{row}.png" for row in range(20)]
    outside = pa.array([{"bytes": None, "path": path} for path in paths], struct)
    shards = [
        write_shard(tmp_path / "text.parquet", texts),
        write_shard(tmp_path / "stream.arrow", pa.array(texts).dictionary_encode()),
        write_shard(tmp_path / "binary.parquet", texts, image=binary),
        write_shard(tmp_path / "outside.parquet", texts, image=outside),
        write_shard(tmp_path / "file.parquet", texts, file=pa.array(paths)),
    ]
    first = prepared(shards[0], validation_size=0)
    assert first.class_names == ("cat", "dog")
    for shard in shards[1:]:
        data = prepared(shard, validation_size=0)
        # Files have an order by name of their own.
        for ours, theirs in ((first.train, data.train), (first.test, data.test)):
            assert sorted(map(str, ours.images)) == sorted(map(str, theirs.images)), shard


def test_a_folder_of_shards_with_parts_and_groups(tmp_path: Path) -> None:
    data = tmp_path / "hub" / "data"
    for number, name in enumerate(("train-00000-of-00002", "train-00001-of-00002", "test-00000")):
        groups = [f"{name[:5]} {row // 2}" for row in range(8)]
        write_shard(data / f"{name}.parquet", TURNS[:8], NAMES, first=8 * number, group=groups)
    found = {
        (name, root): prepared(root, name=name, validation_size=0)
        for name in ("table", "folder")
        for root in (tmp_path / "hub", data)
    }
    assert {(len(each.train), len(each.test)) for each in found.values()} == {(16, 8)}
    assert len({each.fingerprint for each in found.values()}) == 1
    saved = tmp_path / "saved"  # as `datasets` saves a dictionary of sets
    for part in ("train", "test"):
        name = saved / part / "data-00000-of-00001_stream.arrow"
        write_shard(name, TURNS[: 16 if part == "train" else 8], NAMES, 16 * (part == "test"))
    again = prepared(saved, validation_size=0)
    assert again.fingerprint == found["table", data].fingerprint


@pytest.mark.parametrize("name", ["a.parquet", "a[1].parquet"])
def test_pictures_are_copied_once_and_a_killed_copy_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    path = write_shard(tmp_path / name, TURNS, NAMES)
    first = pictures_of(path)
    folder = cache_folder("tables")
    (copy,) = folder.rglob("*.pictures")
    with monkeypatch.context() as patch:
        patch.setattr(picture_blob, "_write_pictures", None)
        assert pictures_of(path) == first
    leftover = copy.with_name(f".{copy.stem}.123{copy.suffix}")
    shutil.move(copy, leftover)
    assert pictures_of(path) == first
    assert list(folder.rglob(".*")) == []
    write_shard(path, [1, 0] * 10, NAMES, first=50)
    assert list(pictures_of(path).values()) != list(first.values())
    assert len([*folder.rglob("*.pictures")]) == 1  # none of the table as it was before


@pytest.mark.parametrize(
    ("labels", "columns", "expected"),
    [
        ([None, 1, 0, 1], {}, r"a\.parquet, row 0 \(from 0\): has no label"),
        ([0, 1, 0, 2], {}, r"row 3 \(from 0\): the label 2 has no name; .* names for 0 to 1"),
        ([0, 1, 0, -1], {}, r"row 3 \(from 0\): the label -1 has no name"),
        ([[0], [1], [0], [0, 1]], {}, r"column label .*several labels .* data\.multi_label: true"),
        ([0.5, 1.0, 0.0, 1.0], {}, r"data\.label_column: the column label .* type double"),
        ([0, 1, 0, 1], {"image": [1, 2, 3, 4]}, r"data\.file_column: the column image .* int64"),
        (
            [0, 1, 0, 1],
            {"image": [{"bytes": b"x", "path": "a"}] * 3 + [{"bytes": None, "path": None}]},
            r"a\.parquet, row 3 \(from 0\): has no picture",
        ),
        ([0, 1, 0, 1], {"part": ["train"] * 3 + ["x"]}, r"row 3 \(from 0\): the part 'x'"),
    ],
)
def test_a_wrong_row_or_column_is_named(
    tmp_path: Path, labels: Any, columns: dict[str, Any], expected: str
) -> None:
    path = write_shard(tmp_path / "a.parquet", labels, NAMES, **columns)
    with pytest.raises(UserError, match=expected):
        pictures_of(path)
    assert list(cache_folder("tables").rglob("*.pictures")) == []


@pytest.mark.parametrize("name", ["train-0.parquet", "train-0_stream.arrow", "train-0.arrow"])
@pytest.mark.parametrize("left", [-8, 0.9, 0.5, 0.1, 0])
def test_a_shard_that_was_cut_is_named(tmp_path: Path, name: str, left: float) -> None:
    write_shard(tmp_path / "own" / "test-0.parquet", TURNS, NAMES)
    path = write_shard(tmp_path / "own" / name, TURNS, NAMES)
    content = path.read_bytes()
    path.write_bytes(content[: int(left * len(content)) if left >= 0 else int(left)])
    with pytest.raises(UserError, match=rf"{name}: damaged or cut off"):
        pictures_of(tmp_path / "own")


def test_a_shard_that_is_damaged_inside_is_named(tmp_path: Path) -> None:
    path = write_shard(tmp_path / "a.parquet", TURNS, NAMES)
    content = bytearray(path.read_bytes())
    content[4:40] = bytes(36)
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"a\.parquet: damaged or cut off"):
        pictures_of(path)


def test_shards_that_do_not_fit_together_are_refused(tmp_path: Path) -> None:
    write_shard(tmp_path / "train-0.parquet", TURNS, NAMES)
    write_shard(tmp_path / "train-1.parquet", TURNS, ("cat", "dog"))
    with pytest.raises(UserError, match=r"train-1\.parquet: has other columns or names of"):
        pictures_of(tmp_path)
    write_shard(tmp_path / "train-1.parquet", TURNS, ("cat", "cat"))
    with pytest.raises(UserError, match="two classes of the column label have the same name"):
        pictures_of(tmp_path)
    write_shard(tmp_path / "train-1.parquet", TURNS, NAMES)
    write_shard(tmp_path / "more.parquet", TURNS, NAMES)
    with pytest.raises(UserError, match=r"more\.parquet: its name does not tell whether it is of"):
        pictures_of(tmp_path)


def test_a_folder_of_pictures_with_a_table_in_it_stays_one(tmp_path: Path) -> None:
    for name, parts in (("flat", ("",)), ("parts", ("train", "test"))):
        root = write_pictures(tmp_path / name, parts=parts)
        write_shard(root / "extra.parquet", [0, 1])
        assert not arrow_shards.has_shards(root)
        config = DataConfig(name="folder", root=str(root))
        reading.prepare(config)
        assert reading.read(config).class_names == ("cat", "dog")
