"""`python -m trainer predict`: classify pictures, each by itself."""

from __future__ import annotations

import csv
import io
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.commands.command import Capture, run_command
from tests.commands.predict.predicting import predict
from tests.data.archives import pack
from tests.distributed.launch import run_forked
from tests.runs import Run
from tests.stored import write_model
from trainer.data.sources import digits


def test_json_lines_and_csv(run: Run, photos: Path, capsys: Capture) -> None:
    rows = predict(capsys, run.folder, photos)
    names = [f"{number}.png" for number in range(5)] + ["more/5.png", "more/6.png"]
    assert [row["file"] for row in rows] == [str(photos / name) for name in names]
    for row in rows:
        assert list(row) == ["file", "class", "probability", "probabilities"]
        assert list(row["probabilities"]) == list("0123456789")
        assert row["probability"] == max(row["probabilities"].values())
        assert row["probability"] == row["probabilities"][row["class"]]
        assert sum(row["probabilities"].values()) == pytest.approx(1, abs=1e-6)
    code, output, errors = run_command(capsys, "predict", run.folder, photos)
    assert (code, errors) == (0, "")
    lines = list(csv.reader(io.StringIO(output)))
    assert lines[0] == ["file", "class", "probability"]
    assert lines[1:] == [[row["file"], row["class"], str(row["probability"])] for row in rows]


def test_a_class_that_is_not_probable_enough_is_not_named(
    run: Run, photos: Path, capsys: Capture
) -> None:
    rows = predict(capsys, run.folder, photos)
    middle = sorted(row["probability"] for row in rows)[len(rows) // 2]
    asked = (run.folder, photos, "--min_confidence", str(middle))
    expected = [row["class"] if row["probability"] >= middle else None for row in rows]
    assert [row["class"] for row in predict(capsys, *asked)] == expected
    assert 0 < expected.count(None) < len(rows)
    lines = list(csv.reader(io.StringIO(run_command(capsys, "predict", *asked)[1])))[1:]
    assert [line[1] for line in lines] == [name or "not sure" for name in expected]
    assert run_command(capsys, "predict", *asked[:-1], "2")[0] == 2


def test_pictures_of_the_test_images_give_their_predictions(
    run: Run, photos: Path, capsys: Capture
) -> None:
    stored = np.load(run.folder / "predictions.npz")
    rows = predict(capsys, run.folder, *(photos / f"{number}.png" for number in (0, 2, 4)))
    for row, index in zip(rows, (0, 2, 4), strict=True):
        assert row["class"] == str(stored["predicted"][index])
        # There it went through the model together with others.
        assert row["probability"] == pytest.approx(stored["probability"][index], abs=1e-5)


def test_a_picture_does_not_depend_on_the_others(
    run: Run, photos: Path, tmp_path: Path, capsys: Capture
) -> None:
    for number, image in enumerate(digits.read().test.images[:40, 0]):  # some blocks of them
        Image.fromarray(image).save(tmp_path / f"{number:02}.png")
    together = predict(capsys, run.folder, tmp_path, photos, photos / "3.png")
    assert len(together) == 40 + 7 + 1
    for row in together[::5]:
        assert predict(capsys, run.folder, row["file"]) == [row]


def test_an_archive_gives_what_its_folder_gives(
    run: Run, photos: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, capsys: Capture
) -> None:
    expected = predict(capsys, run.folder, photos)
    for name in ("own.zip", "own.tar", "own.tar.gz"):
        archive = pack(photos, tmp_path / name)
        rows = predict(capsys, run.folder, archive)
        names = [Path(row["file"]).relative_to(photos) for row in expected]
        assert [row["file"] for row in rows] == [f"{archive}: {one}" for one in names]
        assert [row["probabilities"] for row in rows] == [row["probabilities"] for row in expected]
    broken = tmp_path / "own.zip"
    with zipfile.ZipFile(broken, "a") as file:
        file.writestr("more/broken.png", b"no picture")
    code, output, errors = run_command(capsys, "predict", run.folder, broken)
    assert (code, output) == (2, "")
    assert errors.startswith(f"{broken}: more/broken.png: is not a picture that can be read")
    assert len(predict(capsys, run.folder, broken, "--on_bad", "skip")) == len(expected)
    assert f"{broken}: more/broken.png: is not a picture" in caplog.text


def test_two_processes_print_the_same(
    run: Run, photos: Path, tmp_path: Path, capsys: Capture
) -> None:
    broken = tmp_path / "broken.png"  # the second of all, so that of the second process
    broken.write_text("no picture")
    files = [photos / "0.png", broken, photos]
    words = [str(run.folder), *map(str, files), "--on_bad", "skip"]
    done = run_forked(2, tmp_path, "-m", "trainer", "predict", *words, "--json")
    assert done.returncode == 0, done.stderr
    assert done.stderr.count(f"{broken}: is not a picture") == 1
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert rows == predict(capsys, *words)


def test_black_on_white_is_hinted_at_and_inverted(
    run: Run, photos: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, capsys: Capture
) -> None:
    for number in (0, 2):
        with Image.open(photos / f"{number}.png") as picture:
            Image.fromarray(255 - np.asarray(picture)).save(tmp_path / f"{number}.png")
    code, output, _ = run_command(capsys, "predict", run.folder, tmp_path)
    assert (code, len(output.splitlines())) == (0, 3)
    assert "--invert" in caplog.text
    caplog.clear()
    plain = predict(capsys, run.folder, photos / "0.png", photos / "2.png")
    inverted = predict(capsys, run.folder, tmp_path, "--invert")
    assert [row["probabilities"] for row in plain] == [row["probabilities"] for row in inverted]
    assert caplog.text == ""


def test_colour_and_names_with_commas(tmp_path: Path, capsys: Capture) -> None:
    file = write_model(tmp_path / "x.safetensors", channels=3, image_size=(20, 16))
    Image.new("RGB", (300, 200), "red").save(tmp_path / "a,b.jpg")
    names = ["a,b.jpg", "c\rd.png", "e\nf.png", 'g"h.png', "grey.png"]
    for name in names[1:]:
        Image.new("L", (16, 20), 7).save(tmp_path / name)
    code, output, _ = run_command(capsys, "predict", file, tmp_path)
    assert code == 0
    assert "\r\n" not in output
    lines = list(csv.reader(io.StringIO(output, newline="")))
    assert [line[0] for line in lines[1:]] == [str(tmp_path / name) for name in names]
    assert {line[1] for line in lines[1:]} <= {"ant", "bee, or wasp", "Käfer"}


def test_a_model_of_five_channels_takes_no_grey_pictures(tmp_path: Path, capsys: Capture) -> None:
    file = write_model(tmp_path / "x.safetensors", channels=5)
    Image.new("L", (16, 20), 7).save(tmp_path / "grey.png")
    code, output, errors = run_command(capsys, "predict", file, tmp_path)
    assert (code, output) == (2, "")
    assert "should have 5 channels" in errors
    code, output, errors = run_command(capsys, "predict", file, tmp_path, "--on_bad", "skip")
    assert (code, output) == (2, "")
    assert "none of the pictures can be read" in errors
