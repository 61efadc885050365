"""Images with several labels: read from tables, folders and arrays, and divided."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from tests import shapes
from tests.data import picture_folders, picture_tables
from tests.data.picture_tables import write_csv, write_rows, write_shard
from trainer.base.errors import UserError
from trainer.config.rules import validate
from trainer.config.schema import DataConfig, RunConfig
from trainer.data import label_matrix, split
from trainer.data.dataset import Dataset
from trainer.data.loading import load

pytestmark = pytest.mark.usefixtures("caches")


def prepared(path: Path, **keys: Any) -> Dataset:
    return picture_tables.prepared(path, **({"multi_label": True, "validation_size": 0} | keys))


def labels_by_picture(data: Dataset) -> list[tuple[bytes, tuple[int, ...]]]:
    """Return the pixels and the labels of each training image, sorted."""
    images = data.train.images[slice(0, len(data.train))]
    pairs = zip(images.numpy(), data.train.targets.tolist(), strict=True)
    return sorted((pixels.tobytes(), tuple(row)) for pixels, row in pairs)


def test_cells_columns_and_lists_give_the_same_matrix(tmp_path: Path) -> None:
    cells = shapes.write_table(tmp_path / "cells", 40, 10)
    data = prepared(cells)
    assert data.class_names == shapes.NAMES
    assert data.train.targets.dtype.is_floating_point is False
    assert sorted(map(tuple, data.train.targets.tolist())) == sorted(
        map(tuple, shapes.matrix(range(40)).tolist())
    )
    assert (data.train.targets.sum(1) == 0).any(), "an empty cell is no label at all"

    rows = [line.split(",") for line in cells.read_text().splitlines()[1:]]
    flags = [
        [str(int(name in labels.split("|"))) for name in shapes.NAMES] for _, labels, _ in rows
    ]
    header = ",".join(("file", "part", *shapes.NAMES))
    lines = [",".join((file, part, *row)) for (file, _, part), row in zip(rows, flags, strict=True)]
    columns = write_csv(cells.parent, lines, header)
    by_column = prepared(columns, label_column=list(shapes.NAMES))
    assert by_column.class_names == shapes.NAMES
    assert labels_by_picture(by_column) == labels_by_picture(data)

    pieces = [labels.split("|") if labels else [] for _, labels, _ in rows]
    parts = [part for _, _, part in rows]
    lists = pa.table({"file": [file for file, _, _ in rows], "label": pieces, "part": parts})
    pa.parquet.write_table(lists, cells.parent / "lists.parquet")
    listed = prepared(cells.parent / "lists.parquet")
    assert labels_by_picture(listed) == labels_by_picture(data)


def test_equal_pictures_in_several_folders_are_one_with_several_labels(tmp_path: Path) -> None:
    root = picture_folders.write_pictures(tmp_path / "set", classes=("cat", "dog", "owl"), count=10)
    shutil.copy(root / "train/cat/000.png", root / "train/owl/other_name.png")
    shutil.copy(root / "train/cat/001.png", root / "train/dog/again.png")
    keys = {"name": "folder", "root": str(root), "validation_size": 0}
    one_label = picture_folders.prepared(root, validation_size=0)
    assert len(one_label.train) == 32
    several = picture_folders.prepared(root, validation_size=0, multi_label=True)
    assert len(several.train) == 30
    assert several.train.targets.sum(0).tolist() == [10, 11, 11]
    assert sorted(map(tuple, several.train.targets.tolist()))[-2:] == [(1, 0, 1), (1, 1, 0)]
    assert several.fingerprint != one_label.fingerprint
    assert several.fingerprint == load(DataConfig(multi_label=True, **keys), 0).fingerprint


def test_equal_pictures_of_two_groups_are_refused(tmp_path: Path) -> None:
    root = picture_folders.write_pictures(tmp_path / "set", parts=("train",), count=6)
    shutil.copy(root / "train/cat/000.png", root / "train/dog/b_9.png")
    for number in range(6):
        (root / f"train/cat/00{number}.png").rename(root / f"train/cat/a_{number}.png")
        (root / f"train/dog/00{number}.png").rename(root / f"train/dog/c_{number}.png")
    with pytest.raises(UserError, match=r"data\.groups: .*the same picture in the groups"):
        picture_folders.prepared(root, multi_label=True, groups="^([abc])_")


def test_arrays_of_columns_are_read(tmp_path: Path) -> None:
    images, targets = np.zeros((6, 4, 4), np.uint8), np.tile(np.eye(2, dtype=bool), (3, 1))
    for part in ("train", "test"):
        np.save(tmp_path / f"a_{part}_features.npy", images)
        np.save(tmp_path / f"a_{part}_targets.npy", targets)
    config = DataConfig(name="npy", root=str(tmp_path), validation_size=0)
    with pytest.raises(UserError, match=r"data\.multi_label: true"):
        load(config, 0)
    data = load(DataConfig(name="npy", root=str(tmp_path), validation_size=0, multi_label=True), 0)
    assert data.class_names == ("0", "1")
    assert data.train.targets.tolist() == targets.astype(int).tolist()
    np.save(tmp_path / "a_test_targets.npy", targets * 2)
    with pytest.raises(UserError, match=r"a_test_targets\.npy: value 2 at image 0, class 0"):
        load(DataConfig(name="npy", root=str(tmp_path), multi_label=True), 0)


@pytest.mark.parametrize(
    ("rows", "header", "keys", "words"),
    [
        (["0.png,cat||dog,train"], "file,label,part", {}, ["line 2", "has no label"]),
        (["0.png,cat|dog,train", "1.png,owl,test"], "file,label,part", {}, ["line 3", "owl"]),
        (["0.png,cat,train", "1.png,,train"], "file,label,part", {}, ["at least 2 classes"]),
        (
            ["0.png,1,2,train"],
            "file,cat,dog,part",
            {"label_column": ["cat", "dog"]},
            ["line 2", "the column dog must be 0 or 1, found '2'"],
        ),
        (
            ["0.png,1,0,train", "1.png,1,0,train"],
            "file,cat,dog,part",
            {"label_column": ["cat", "dog"]},
            ["data.label_column", "at least 2 classes|column dog"],
        ),
        (
            ["0.png,1,0,train"],
            "file,cat,dog,part",
            {"label_column": ["cat", "dogs"]},
            ["data.label_column", "no column dogs", "did you mean dog"],
        ),
    ],
)
def test_a_wrong_row_is_named(
    tmp_path: Path, rows: list[str], header: str, keys: dict[str, Any], words: list[str]
) -> None:
    for number in range(2):
        (tmp_path / f"{number}.png").write_bytes(picture_tables.png(number))
    with pytest.raises(UserError) as caught:
        prepared(write_csv(tmp_path, rows, header), **keys)
    assert all(any(word in str(caught.value) for word in one.split("|")) for one in words[1:])


@pytest.mark.parametrize(
    ("keys", "key"),
    [
        ({"name": "digits", "multi_label": True}, r"data\.multi_label"),
        ({"name": "pathmnist", "multi_label": True}, r"data\.multi_label"),
        ({"name": "chestmnist"}, r"data\.multi_label: must be true"),
        ({"name": "table", "root": "a.csv", "label_column": ["a", "b"]}, r"data\.label_column"),
    ],
)
def test_keys_that_do_not_fit_are_refused(keys: dict[str, Any], key: str) -> None:
    with pytest.raises(UserError, match=key):
        validate(RunConfig(data=DataConfig(**keys)))


def test_a_list_of_labels_needs_the_key(tmp_path: Path) -> None:
    path = write_shard(tmp_path / "train-0.parquet", [["a"], ["a", "b"]] * 5)
    with pytest.raises(UserError, match=r"data\.multi_label: true"):
        picture_tables.prepared(path)
    write_rows(tmp_path)


MATRICES = arrays.arrays(
    np.uint8, st.tuples(st.integers(20, 60), st.integers(2, 5)), elements=st.integers(0, 1)
)


@settings(max_examples=40, deadline=None)
@given(labels=MATRICES, size=st.integers(0, 15) | st.none())
def test_every_division_is_one_and_keeps_shares(labels: np.ndarray, size: int | None) -> None:
    train, held_out = split.split(DataConfig(validation_size=size), labels, 0)
    assert sorted([*train, *held_out]) == list(range(len(labels)))
    if size:
        assert len(held_out) == size
        strata = label_matrix.strata(labels)
        counts = np.bincount(strata, minlength=6)
        inside = np.bincount(strata[held_out], minlength=6)
        error = np.abs(inside - counts * size / len(labels))
        assert (error <= 1 + (counts == 1).sum()).all()


def test_groups_stay_whole() -> None:
    labels, groups = shapes.matrix(range(200)), np.arange(200) // 3
    train, held_out = split.split(DataConfig(), labels, 0, shapes.NAMES, groups)
    assert sorted([*train, *held_out]) == list(range(200))
    assert not {*groups[train]} & {*groups[held_out]}
    assert labels[held_out].any(0).all()
    config = DataConfig(folds=4, fold=2)
    rest, fold = split.take_fold(config, labels, 0, shapes.NAMES, groups)
    assert not {*groups[rest]} & {*groups[fold]}
    labels[:, 0] = groups == 5
    with pytest.raises(UserError, match=r"data\.validation_size: none of the divisions by"):
        split.split(DataConfig(validation_size=3), labels[15:21], 0, shapes.NAMES, groups[15:21])


def test_folds_hold_each_label_evenly() -> None:
    labels = shapes.matrix(range(300))
    inside = []
    for fold in (1, 2, 3):
        config = DataConfig(folds=3, fold=fold)
        rest, held_out = split.take_fold(config, labels, 0)
        assert sorted([*rest, *held_out]) == list(range(300))
        inside.append(labels[held_out].sum(0))
    assert np.ptp(np.array(inside), axis=0).max() <= 12
    labels[:, 0] = 0
    labels[:2, 0] = 1
    with pytest.raises(UserError, match=r"data\.folds: 3 folds .* found 2 of class bar"):
        split.take_fold(DataConfig(folds=3, fold=1), labels, 0, shapes.NAMES)


def test_a_stratum_is_the_rarest_label() -> None:
    labels = np.array([[1, 1], [1, 0], [1, 0], [0, 0]], np.uint8)
    assert label_matrix.strata(labels).tolist() == [1, 0, 0, 2]
    assert label_matrix.strata(labels, least=2).tolist() == [2, 0, 0, 2]
    assert label_matrix.count_images(labels, 2).tolist() == [3, 1]
