"""Labels that are likely wrong, by a run or by the folds of a cross-validation."""

from __future__ import annotations

import csv
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.commands.command import Capture, run_command
from tests.commands.inspect_data.looking import WRONG, inspect
from tests.data.picture_folders import write_digits
from tests.distributed.launch import run_forked
from tests.runs import words
from trainer.commands.inspect_data.label_errors import find_suspects
from trainer.config import command_line
from trainer.data.sources import reading
from trainer.training.metrics import Predictions


def enlarged(root: Path, copy: Path) -> Path:
    """Copy the pictures, larger and in colour."""
    shutil.copytree(root, copy)
    for path in copy.rglob("*.png"):
        with Image.open(path) as picture:
            large = picture.resize((16, 16), Image.Resampling.NEAREST).convert("RGB")
        large.save(path)
    return copy


def test_wrong_labels_are_found(
    capsys: Capture, run: Path, digits: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    found = inspect(capsys, run, "--most", "6")["suspects"]
    assert found["own_images"] is True
    assert [part["part"] for part in found["parts"]] == ["validation", "test"]
    images = found["images"]
    named = {image["name"].rpartition("/")[2] for image in images if image["part"] == "test"}
    assert {f"{number:04}.png" for number in WRONG} <= named
    confidences = [image["self_confidence"] for image in images]
    assert confidences == sorted(confidences)
    found = inspect(capsys, run, "--data.root", enlarged(digits, tmp_path / "large"))
    assert [part["samples"] for part in found["suspects"]["parts"]] == [40, 200]
    assert found["suspects"]["own_images"] is False
    assert "the images are not those of the run" in caplog.text
    code, output, _ = run_command(capsys, "inspect-data", run)
    assert code == 0
    assert re.search(r"0060\.png +digit 6 \d\.\d\d % -> digit 5 \d\d\.\d\d %", output)


def test_wrong_labels_of_training_images_are_found_by_their_folds(
    capsys: Capture, tmp_path: Path
) -> None:
    """Each by the fold that was not trained on it; the test images are left out, and said so."""
    root = write_digits(tmp_path / "own", test=50, wrong_in_train=WRONG)
    folder, table, page = tmp_path / "folds", tmp_path / "labels.csv", tmp_path / "page.html"
    more = ["--data.name", "folder", "--data.root", str(root), "--data.augment", "none"]
    recipe = words(folder, *more, "--train.epochs", "8")
    assert run_command(capsys, "crossval", "--folds", "2", *recipe, "--fold", "1")[0] == 0
    code, _, errors = run_command(capsys, "inspect-data", folder)
    assert code == 2
    assert "its cross-validation is not finished" in errors
    assert run_command(capsys, "crossval", "--folds", "2", *recipe)[0] == 0
    found = inspect(capsys, folder, "--csv", table, "--page", page)["suspects"]
    samples = {part["part"]: part["samples"] for part in found["parts"]}
    assert samples == {"train": 360, "validation": 40}
    assert found["not_judged"] == [{"part": "test", "samples": 50}]
    assert "The 50 in test were not judged" in page.read_text(encoding="utf-8")
    with table.open(newline="", encoding="utf-8") as file:
        rows = {row["file"].rpartition("/")[2]: row for row in csv.DictReader(file)}
    assert len(rows) == sum(part["count"] for part in found["parts"]) < 60
    files = list(reading.read(command_line.parse(recipe).data).train.names or ())
    with np.load(folder / "out_of_fold.npz") as answers:
        wrong = [rows[name] for number in WRONG if (name := f"{number:04}.png") in rows]
        assert len(wrong) >= 2
        for row in wrong:
            position = files.index(row["file"].replace("validation/", "train/"))
            assert float(row["likely_probability"]) == answers["probability"][position]
            assert row["likely_label"] == f"digit {answers['predicted'][position]}"
        columns = dict(answers)
    np.savez(folder / "out_of_fold.npz", **columns | {"predicted": columns["predicted"] + 9})
    code, _, errors = run_command(capsys, "inspect-data", folder)
    assert (code, "damaged, it has answers that are no class" in errors) == (2, True)
    np.savez(folder / "out_of_fold.npz", **columns)
    (root / rows["0005.png"]["file"].replace("validation/", "train/")).unlink()
    for more, message in (
        ([], "are not those of the cross-validation in"),
        (["--model", "mine.py:Net"], "--model: is about the model of a run"),
        (["--seed", "3"], "seed: belongs to the run"),
    ):
        code, output, errors = run_command(capsys, "inspect-data", folder, *more)
        assert (code, output) == (2, "")
        assert message in errors


def test_several_processes_print_the_same_once(capsys: Capture, run: Path, tmp_path: Path) -> None:
    apart = run_forked(2, tmp_path, "-m", "trainer", "inspect-data", str(run), "--json")
    assert apart.returncode == 0, apart.stderr
    assert json.loads(apart.stdout) == inspect(capsys, run)


def test_suspects_are_more_confident_than_is_usual() -> None:
    found = Predictions(
        target=np.array([0, 0, 0, 1, 1, 1]),
        predicted=np.array([0, 1, 1, 1, 1, 0]),
        probability=np.array([0.9, 0.75, 0.99, 0.9, 0.9, 0.85]),
        loss=-np.log(np.array([0.9, 0.25, 0.01, 0.9, 0.9, 0.15])),
    )
    # Of class 0 it is 0.387 on average, of class 1 0.65.
    assert find_suspects(found, 3).tolist() == [2, 5, 1]
    found.probability[1] = 0.6
    assert find_suspects(found, 3).tolist() == [2, 5]


def test_the_page_of_a_run_shows_the_labels_and_the_table_has_all(
    capsys: Capture, run: Path, digits: Path, tmp_path: Path
) -> None:
    page, table = tmp_path / "page.html", tmp_path / "labels.csv"
    shown = inspect(capsys, run, "--page", page, "--csv", table, "--most", "4")["suspects"]
    text = page.read_text(encoding="utf-8")
    assert "test/digit 6/0060.png" in text
    assert text.count("labelled <b>") == len(shown["images"]) == 4
    assert "Shown are the 4 to which it gives the lowest probability" in text
    with table.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == sum(part["count"] for part in shown["parts"]) > 4
    assert [row["file"] for row in rows[:4]] == [image["name"] for image in shown["images"]]
    (wrong,) = (row for row in rows if row["file"] == "test/digit 6/0060.png")
    assert (wrong["part"], wrong["label"], wrong["likely_label"]) == ("test", "digit 6", "digit 5")
    for image, row in zip(shown["images"], rows, strict=False):
        assert float(row["label_probability"]) == image["self_confidence"]
        assert float(row["likely_probability"]) == image["probability"]
        assert (digits / row["file"].replace("validation/", "train/")).is_file()
