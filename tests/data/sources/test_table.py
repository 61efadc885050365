"""Tables of text: what they may look like, and what is said of a wrong row."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.data.archives import pack
from tests.data.picture_tables import HEADER, png, prepared, write_csv, write_rows
from trainer.base.errors import UserError
from trainer.config.schema import DataConfig
from trainer.data.pictures.picture_set import ListedPictures
from trainer.data.sources import reading, table
from trainer.data.sources.picture_plan import PictureList

pytestmark = pytest.mark.usefixtures("caches")


def listed(path: Path, **keys: Any) -> PictureList:
    return table.list_pictures(path, DataConfig(name="table", root=str(path), **keys))


def names(pictures: ListedPictures) -> list[str]:
    return [Path(name).stem for name in pictures.places.names]


def test_a_table_becomes_images_with_classes_parts_groups_and_weights(tmp_path: Path) -> None:
    path = write_csv(tmp_path, write_rows(tmp_path))
    found = listed(path, sampling="weights")
    assert found.class_names == ("cat", "dog")
    train, test = found.parts["train"], found.parts["test"]
    assert names(train) == ["1", "11", "3", "5", "7", "9", "0", "10", "2", "4", "6", "8"]
    assert train.labels.tolist() == [0] * 6 + [1] * 6
    assert train.groups is not None
    assert list(train.groups)[:3] == ["film 0", "film 5", "film 1"]
    assert train.weights is not None
    assert train.weights.tolist()[:3] == [1.0, 11.0, 3.0]
    assert sorted(names(test)) == [str(number) for number in range(12, 20)]
    assert not found.makes_test
    data = prepared(path, validation_size=0)
    assert (len(data.train), len(data.test)) == (12, 8)
    assert data.train.targets.tolist() == [0, 1] * 6


def test_the_same_table_in_other_dialects_is_the_same(tmp_path: Path) -> None:
    rows = write_rows(tmp_path)
    first = prepared(write_csv(tmp_path, rows)).fingerprint
    whole = "\n".join([HEADER, *reversed(rows)])
    texts = {
        "bom.csv": "\ufeff" + whole.replace("\n", "\r\n\r\n"),
        "semicolons.csv": whole.replace(",", ";"),
        "empty_lines_first.csv": "\n \n" + whole.replace(",", ";"),
        "quoted.CSV": '"' + whole.replace(",", '", "').replace("\n", '"\n"') + '"',
        "tabs.tsv": whole.replace(",", "\t"),
        "dots.csv": whole.replace("photos", "./photos/../photos"),
        "absolute.csv": whole.replace("photos", f"{tmp_path}/photos"),
        "other_words.csv": whole.replace(",train,", ",Training,").replace(",test,", ",TEST,"),
    }
    for name, text in texts.items():
        (tmp_path / name).write_text(text, encoding="utf-8", newline="")
        assert prepared(tmp_path / name).fingerprint == first, name


def test_columns_may_have_other_names_and_may_be_missing(tmp_path: Path) -> None:
    rows = write_rows(tmp_path)
    first = prepared(write_csv(tmp_path, rows)).fingerprint
    keys = {"file_column": "Path", "label_column": "kind", "part_column": "fold"}
    path = write_csv(tmp_path, rows, "Path,kind,fold,group,else")
    assert prepared(path, **keys).fingerprint == first
    without = listed(write_csv(tmp_path, [row.split(",tr")[0] for row in rows[:12]], "image,label"))
    assert without.makes_test
    assert without.parts.keys() == {"train"}
    assert without.parts["train"].groups is None
    path = write_csv(tmp_path, rows)
    assert listed(path, group_column=None).parts["train"].groups is None
    groups = listed(path, groups="weight").parts["train"].groups
    assert groups is not None
    assert list(groups)[:2] == ["1", "11"]


def test_classes_are_sorted_and_numbers_as_numbers(tmp_path: Path) -> None:
    rows = [row.split(",")[0] for row in write_rows(tmp_path, 33)]
    numbered = [f"{row},{number % 11}" for number, row in enumerate(rows)]
    found = listed(write_csv(tmp_path, numbered, "file,label"))
    assert found.class_names == tuple(map(str, range(11)))
    mixed = [*numbered[:-1], f"{rows[-1]},x"]
    found = listed(write_csv(tmp_path, mixed, "file,label"))
    assert found.class_names[:4] == ("0", "1", "10", "2")


def test_a_row_that_says_the_same_again_counts_once_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = write_rows(tmp_path)
    first = prepared(write_csv(tmp_path, rows)).fingerprint
    assert prepared(write_csv(tmp_path, [*rows, rows[3]])).fingerprint == first
    assert "left out, as they repeat an earlier row:" in caplog.text
    assert "labels.csv, line 22" in caplog.text


def test_a_file_that_is_not_there_can_be_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = write_rows(tmp_path)
    path = write_csv(tmp_path, rows)
    first = prepared(path).fingerprint
    (tmp_path / "photos" / "4.png").unlink()
    (tmp_path / "photos" / "6.png").unlink()
    with pytest.raises(UserError) as error:
        prepared(path)
    assert "2 of the 20 files" in str(error.value)
    assert f"labels.csv, line 6: there is no file {tmp_path}/photos/4.png" in str(error.value)
    assert "line 8" in str(error.value)
    assert prepared(path, on_bad="skip").fingerprint != first
    assert "labels.csv, line 6, " in caplog.text


@pytest.mark.parametrize("ending", [".zip", ".tar", ".tar.gz"])
def test_the_files_may_be_in_archives_beside_the_table(tmp_path: Path, ending: str) -> None:
    path = write_csv(tmp_path, write_rows(tmp_path))
    first = prepared(path).fingerprint
    photos = tmp_path / "photos"
    some = tmp_path / "some"
    some.mkdir()
    for number in range(5):
        (photos / f"{number}.png").rename(some / f"{number}.png")
    pack(some, tmp_path / f"a{ending}", below="photos/")
    alone = (photos / "17.png").read_bytes()
    (photos / "17.png").unlink()
    pack(photos, tmp_path / "b.tar", below="all/photos/")  # a folder that holds everything
    shutil.rmtree(photos)
    photos.mkdir()
    # The others in archives.
    (photos / "17.png").write_bytes(alone)
    data = prepared(path)
    assert data.fingerprint == first
    (photos / "17.png").write_bytes(png(1000))
    assert prepared(path).fingerprint != first
    (photos / "17.png").write_bytes(alone)
    stored = prepared(path, store_size=8)
    assert stored.test.images[:].shape[0] == len(data.test)
    pack(photos, tmp_path / "d.zip", below="photos/")
    shutil.rmtree(photos)
    (tmp_path / "unrelated.zip").write_bytes(b"PK")
    assert prepared(path).fingerprint == first
    (tmp_path / "unrelated.zip").unlink()
    path = write_csv(tmp_path, [*write_rows(tmp_path / "other"), "photos/x.png,cat,train,film 0,1"])
    with pytest.raises(UserError, match=r"line 22: there is no file .*photos/x.png"):
        prepared(path)
    (tmp_path / "broken.zip").write_bytes(b"PK")
    with pytest.raises(UserError, match=r"line 22: .*photos/x.png.*broken\.zip: is not a whole"):
        prepared(path)
    pack(some, tmp_path / "c.zip", below="photos/")
    (tmp_path / "broken.zip").unlink()
    with pytest.raises(UserError, match=f"a{ending} and .*c.zip both have a picture photos/"):
        prepared(path, on_bad="skip")


def test_the_rows_of_one_part_may_have_any_classes(tmp_path: Path) -> None:
    rows = write_rows(tmp_path)
    path = write_csv(tmp_path, [row.replace("dog", "cat") for row in rows[12:]])
    config = DataConfig(name="table", root=str(path), image_size=8, channels=1)
    with pytest.raises(UserError, match="no row has train in the column part"):
        listed(path)
    assert reading.read_split(config, "train") is None
    split = reading.read_split(config, "test")
    assert split is not None
    assert split.class_names == ("cat",)
    assert split.data.images.shape == (8, 1, 8, 8)
    # Without a column for the part all are of the test.
    path = write_csv(tmp_path, [",".join(row.split(",")[:2]) for row in rows], "file,label")
    split = reading.read_split(config, "test")
    assert split is not None
    assert len(split.data.labels) == 20


def test_weights_draw_the_training_images(tmp_path: Path) -> None:
    rows = write_rows(tmp_path)
    path = write_csv(tmp_path, rows)
    data = prepared(path, sampling="weights", validation_size=0)
    assert data.train_weights is not None
    # In the order of the images: the first of each class, then the second of each.
    assert data.train_weights.tolist()[:4] == [1.0, 0.0, 11.0, 10.0]
    uniform = prepared(path, validation_size=0)
    assert uniform.train_weights is None
    assert uniform.fingerprint != data.fingerprint
    assert np.array_equal(uniform.train.targets, data.train.targets)


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        (
            "photos/1.png,dog,train,film 0,1",
            ["line 22: photos/1.png has the label 'dog'", "line 3"],
        ),
        ("./photos/1.png,cat,test,film 0,1", ["line 22", "the part 'test', and 'train'", "line 3"]),
        ("photos/1.png,,train,film 0,1", ["line 22: has no label"]),
        (",cat,train,film 0,1", ["line 22: names no file"]),
        ("photos/x.png,cat,holdout,film 0,1", ["line 22: the part 'holdout'", "part_column"]),
        ("photos/x.png,cat,,film 0,1", ["line 22: the part ''", "train, validation, test"]),
        ("photos/x.png,cow,test,film 0,1", ["line 22: the class cow is in test", "in train"]),
        ("photos/x.png,cat,test,film 0", ["line 22: has 4 fields, and the header 5"]),
        ('photos/x.png,"cat,test,film 0,1', ["line 22", "unexpected end"]),
        ("photos/1.png/x.png,cat,train,film 0,1", ["line 22: there is no file"]),
        ("photos,cat,train,film 0,1", ["photos: is not a regular file"]),
        ("photos/x.png,cat,train,,1", ["line 22: has no group", "data.group_column be null"]),
        ("photos/x.png,cat,train,film 0,-1", ["line 22: the weight '-1' must be a number"]),
        ("photos/x.png,cat,train,film 0,nan", ["line 22: the weight 'nan'"]),
        ("photos/x.png,cat,train,film 0,", ["line 22: the weight ''"]),
    ],
    ids=str,
)
def test_a_wrong_row_is_named(tmp_path: Path, row: str, expected: list[str]) -> None:
    rows = write_rows(tmp_path)
    (tmp_path / "photos" / "x.png").write_bytes((tmp_path / "photos" / "1.png").read_bytes())
    with pytest.raises(UserError) as error:
        prepared(write_csv(tmp_path, [*rows, row]), sampling="weights")
    for words in expected:
        assert words in str(error.value)


@pytest.mark.parametrize(
    ("header", "keys", "expected"),
    [
        ("file,Labels,part,group,weight", {}, ["data.label_column", "did you mean Labels?"]),
        ("name,label,part,group,weight", {}, ["data.file_column", "name, label, part"]),
        (HEADER, {"part_column": "prt"}, ["data.part_column: ", "did you mean part?"]),
        (HEADER, {"group_column": "patient"}, ["data.group_column", "no column patient"]),
        (HEADER, {"groups": "patient"}, ["data.groups: ", "no column patient"]),
        (HEADER, {"weight_column": "importance"}, ["data.weight_column", "no column importance"]),
        ("file,label,part,group,w", {"sampling": "weights"}, ["data.weight_column", "has no"]),
        ("file,label,part,label,weight", {}, ["two columns label"]),
    ],
    ids=str,
)
def test_a_wrong_column_is_named(
    tmp_path: Path, header: str, keys: dict[str, Any], expected: list[str]
) -> None:
    path = write_csv(tmp_path, write_rows(tmp_path), header)
    with pytest.raises(UserError) as error:
        listed(path, **keys)
    assert all(words in str(error.value) for words in [str(path), *expected])


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (f"{HEADER}\n".encode("utf-16"), "is in UTF-16; save it as UTF-8"),
        (f"{HEADER}\na.png,caf\xe9,train,a,1\n".encode("latin-1"), "not in UTF-8, .* bytes e9"),
        (b"", "is empty"),
        (b"file,label\n", "has a header, and no rows"),
        (b"file,label\na.png,a\nb.png,a\n", "at least 2 classes; all are of a"),
    ],
)
def test_a_table_that_is_none_is_refused(tmp_path: Path, content: bytes, expected: str) -> None:
    path = tmp_path / "labels.csv"
    path.write_bytes(content)
    with pytest.raises(UserError, match=rf"labels\.csv: .*{expected}"):
        listed(path)


def test_a_table_must_be_there_and_end_as_one(tmp_path: Path) -> None:
    for name, words in (("x.csv", "there is no file"), ("x.xlsx", "ends in one of")):
        with pytest.raises(UserError, match=rf"data\.root: .*{words}"):
            listed(tmp_path / name)


def test_weights_that_are_all_nothing_are_refused(tmp_path: Path) -> None:
    rows = [f"{row.rpartition(',')[0]},0" for row in write_rows(tmp_path)]
    with pytest.raises(UserError, match=r"data\.sampling: all weights of the 10 training"):
        prepared(write_csv(tmp_path, rows), sampling="weights")
