"""`python -m trainer inspect-data`: counts, sizes and equal images, and what it refuses."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from tests.commands.command import Capture, run_command
from tests.commands.inspect_data.looking import FOLDER, inspect, of_folder
from tests.data.picture_folders import write_pictures
from tests.runs import DIGITS, words


def test_counts_are_those_of_the_folders(capsys: Capture, digits: Path) -> None:
    found = inspect(capsys, *of_folder(digits))
    for row in found["classes"]:
        assert row["test"] == len(list((digits / "test" / row["name"]).iterdir()))
        both = row["train"] + row["validation"]
        assert both == len(list((digits / "train" / row["name"]).iterdir()))
    assert found["data"]["image_size"] == [8, 8]
    assert found["pictures"]["count"] == 600
    assert found["suspects"] is None
    code, output, _ = run_command(capsys, "inspect-data", *of_folder(digits))
    assert code == 0
    assert re.search(r"^all +360 +40 +200$", output, re.MULTILINE)
    assert "600 of 8 x 8 pixels (height x width); 600 grey, 0 in colour" in output


def test_sizes_and_duplicates(capsys: Capture, doubled: Path) -> None:
    found = inspect(capsys, *of_folder(doubled))
    assert found["pictures"] == {
        "count": 28, "sizes": 2, "smallest": [12, 10], "median": [12, 10], "largest": [40, 30],
        "grey": 27, "colour": 1, "other_channels": 0,
    }  # fmt: skip
    duplicates = found["duplicates"]
    groups = [[image["name"] for image in group] for group in duplicates.pop("groups")]
    assert duplicates == {
        "train": 1, "validation": 0, "test": 1, "validation_in_train": 1, "test_in_train": 1,
        "test_in_validation": 0, "of_other_class": 1, "count": 3,
    }  # fmt: skip
    assert groups == [
        ["train/dog/001.png", "validation/cat/copy.png"],
        ["train/dog/000.png", "train/dog/copy.png", "test/dog/copy.png"],
        ["test/cat/001.png", "test/cat/copy.png"],
    ]
    code, output, _ = run_command(capsys, "inspect-data", *of_folder(doubled), "--most", "1")
    assert code == 0
    assert "train/dog/001.png (dog) = validation/cat/copy.png (cat)" in output
    assert "and 2 more groups" in output


def test_any_kind_of_data_set(capsys: Capture, tmp_path: Path) -> None:
    found = inspect(capsys, *words(tmp_path / "run"))
    assert sum(row["train"] for row in found["classes"]) == 1293
    assert found["pictures"] is None
    assert list(tmp_path.iterdir()) == []
    images = np.zeros((40, 6, 6), dtype=np.uint8)
    images[:, 0, 0] = np.arange(40)
    images[30] = images[20]
    for part in ("train", "test"):
        np.save(tmp_path / f"a_{part}_features.npy", images)
        np.save(tmp_path / f"a_{part}_targets.npy", np.arange(40) % 2)
    more = ["--data.name", "npy", "--data.root", str(tmp_path), "--data.validation_size", "0"]
    for limit in ("1000", "0"):
        more += ["--data.memory_limit_mb", limit]
        duplicates = inspect(capsys, "--config", DIGITS, *more, "--most", "1")["duplicates"]
        assert duplicates["test_in_train"] == 40
        names = [image["name"] for image in duplicates["groups"][0]]
        assert names == ["train image 20", "train image 30", "test image 20", "test image 30"]


def test_the_test_images_of_a_fold_are_training_images(capsys: Capture, tmp_path: Path) -> None:
    images = np.zeros((40, 6, 6), dtype=np.uint8)
    for part in ("train", "test"):
        np.save(tmp_path / f"a_{part}_features.npy", images)
        np.save(tmp_path / f"a_{part}_targets.npy", np.arange(40) % 2)
    more = ["--config", DIGITS, "--data.name", "npy", "--data.root", str(tmp_path)]
    more += ["--data.folds", "2", "--data.fold", "1", "--data.validation_size", "0"]
    (group,) = inspect(capsys, *more)["duplicates"]["groups"]
    assert {image["part"] for image in group} == {"train", "test"}
    assert {image["name"] for image in group} == {f"train image {i}" for i in range(40)}


def test_bad_input_is_named(capsys: Capture, run: Path, tmp_path: Path) -> None:
    other = write_pictures(tmp_path / "own")
    empty = tmp_path / "empty"
    empty.mkdir()
    for more, message in (
        ([str(empty)], "empty: not a run, there is no config.yaml in it"),
        ([str(run), "--data.root", str(other)], "the model of"),
        ([str(run), "--seed", "3"], "seed: belongs to the run"),
        (["--model", "mine.py:Net"], "--model: is about the model of a run"),
        (["--page", str(tmp_path / "page.png")], "--page: "),
        (["--page", str(tmp_path / "none" / "page.html")], "--page: "),
        ([str(run), "--csv", str(tmp_path / "labels.txt")], "--csv: "),
        ([*of_folder(other), "--csv", str(tmp_path / "a.csv")], "--csv: needs a model that says"),
        (["--most", "0"], "--most: '0' is not a whole number from 1"),
        (["--config", str(FOLDER)], "data.root: must be the folder of the files"),
        (of_folder(tmp_path / "none"), "data.root: there is no folder"),
    ):
        code, output, errors = run_command(capsys, "inspect-data", *more)
        assert (code, output) == (2, ""), more
        assert message in errors
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "own"]
