"""`python -m trainer predict`: classify pictures, each by itself."""

from __future__ import annotations

import contextlib
import csv
import ctypes
import io
import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.commands.command import Capture, run_command
from tests.conftest import REPOSITORY
from tests.data.archives import pack, picture, write_tar
from tests.distributed.launch import environment, run_forked
from tests.runs import Run, train_here
from tests.stored import write_model
from trainer.base.files import write_text
from trainer.data.sources import digits


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("runs") / "run"
    assert train_here(folder, "--train.epochs", "3") == 0
    return Run(folder, 0)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first test images of the digits as pictures, some of them enlarged and in colour."""
    images = digits.read().test.images[:7, 0]
    folder = tmp_path_factory.mktemp("photos")
    (folder / "more").mkdir()
    for number, image in enumerate(images):
        pixels = Image.fromarray(image)
        if number % 2:
            pixels = pixels.resize((80, 80), Image.Resampling.NEAREST).convert("RGB")
        pixels.save(folder / ("more" if number > 4 else "") / f"{number}.png")
    (folder / "notes.txt").write_text("no picture")
    return folder


def predict(capsys: Capture, *words: str | Path) -> list[dict[str, Any]]:
    """The JSON lines."""
    code, output, errors = run_command(capsys, "predict", *words, "--json")
    assert code == 0, errors
    return [json.loads(line) for line in output.splitlines()]


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


def test_a_broken_picture_ends_it_before_anything_is_printed(
    run: Run, photos: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, capsys: Capture
) -> None:
    shutil.copytree(photos, tmp_path / "photos")
    broken = tmp_path / "photos" / "2.png"
    broken.write_bytes(broken.read_bytes()[:-40])
    code, output, errors = run_command(capsys, "predict", run.folder, tmp_path / "photos")
    assert (code, output) == (2, "")
    assert errors.startswith(f"{broken}: is not a picture that can be read")
    words = ["predict", run.folder, tmp_path / "photos", "--on_bad", "skip"]
    code, output, _ = run_command(capsys, *words)
    assert code == 0
    assert len(output.splitlines()) == 1 + 6
    assert f"{broken}: is not a picture" in caplog.text
    assert str(broken) not in output
    code, output, errors = run_command(capsys, "predict", run.folder, broken, "--on_bad", "skip")
    assert (code, output) == (2, "")


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["nowhere.png"], "nowhere.png: there is no such file"),
        (["."], ".: there are no pictures in this folder"),
        (["cut.zip"], "cut.zip: is not a whole .zip file"),
        (["up.tar"], "up.tar: the member '../0.png' leads out of the archive"),
        (["empty.tar"], "empty.tar: there are no pictures in this archive"),
        (["http://127.0.0.1:9/own.zip"], "FILE: http://127.0.0.1:9/own.zip: could not be reached"),
        (["http://127.0.0.1:9/own.png"], "FILE: http://127.0.0.1:9/own.png must be the address"),
        (["text.png"], "text.png: is not a picture"),
        (["--threads", "0", "text.png"], "--threads"),
    ],
)
def test_bad_input_is_one_message(
    run: Run,
    tmp_path: Path,
    words: list[str],
    named: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Capture,
) -> None:
    monkeypatch.chdir(tmp_path)
    if "text.png" in words:
        (tmp_path / "text.png").write_text("no picture")
    (tmp_path / "cut.zip").write_bytes(b"PK")
    write_tar(tmp_path / "up.tar", [("../0.png", picture(0))])
    write_tar(tmp_path / "empty.tar", [("notes.txt", b"none")])
    code, output, errors = run_command(capsys, "predict", run.folder, *words)
    assert (code, output) == (2, "")
    assert errors.startswith(named)
    assert len(errors.splitlines()) == 1


def test_an_empty_name_is_not_the_current_folder(
    run: Run, photos: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.chdir(photos)
    code, output, errors = run_command(capsys, "predict", run.folder, "")
    assert (code, output) == (2, "")
    assert "argument FILE: is empty" in errors
    monkeypatch.chdir(run.folder)
    code, output, errors = run_command(capsys, "inspect-data", "")
    assert (code, output) == (2, "")
    assert "inspect-data: the first argument is empty" in errors


def test_a_folder_gives_the_pictures_that_training_would_take(
    run: Run, photos: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, capsys: Capture
) -> None:
    top = tmp_path / "top"
    for name in (".ipynb_checkpoints", "@eaDir", "__MACOSX", "$RECYCLE.BIN", "plain"):
        (top / name).mkdir(parents=True)
        shutil.copy(photos / "0.png", top / name)
    shutil.copy(photos / "0.png", top / "._0.png")
    (top / "linked").symlink_to(photos / "more")
    (top / "one.PNG").symlink_to(photos / "1.png")
    (top / "plain" / "back").symlink_to(top)
    (top / "plain" / "itself").symlink_to("itself")
    rows = predict(capsys, run.folder, top)
    names = ["linked/5.png", "linked/6.png", "one.PNG", "plain/0.png"]
    assert [row["file"] for row in rows] == [str(top / name) for name in names]
    itself = top / "plain" / "itself"
    assert caplog.messages == [f"{itself}: is a link that leads nowhere; skipped"]


@contextlib.contextmanager
def unprivileged() -> Iterator[None]:
    """Give up root's right to read everything: CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH."""
    libc = ctypes.CDLL(None, use_errno=True)
    header, found = (ctypes.c_uint32 * 2)(0x20080522), (ctypes.c_uint32 * 6)()
    assert libc.capget(header, found) == 0
    changed = (ctypes.c_uint32 * 6)(*found)
    changed[0] &= ~(1 << 1 | 1 << 2)  # of those in effect
    assert libc.capset(header, changed) == 0
    try:
        yield
    finally:
        assert libc.capset(header, found) == 0


@pytest.mark.skipif(sys.platform != "linux", reason="capabilities are Linux's")
def test_a_folder_that_may_not_be_read_is_named(
    run: Run,
    photos: Path,
    tmp_path: Path,
    capsys: Capture,
    caplog: pytest.LogCaptureFixture,
) -> None:
    top, closed = tmp_path / "top", tmp_path / "top" / "closed"
    closed.mkdir(parents=True)
    shutil.copy(photos / "0.png", top)
    shutil.copy(photos / "1.png", closed)
    picture = closed / "1.png"
    picture.chmod(0o000)
    with unprivileged():
        unreadable = run_command(capsys, "predict", run.folder, picture)
        closed.chmod(0o000)
        try:
            stopped = run_command(capsys, "predict", run.folder, top)
            skipped = run_command(capsys, "predict", run.folder, top, "--on_bad", "skip")
            inside = run_command(capsys, "predict", run.folder, picture)
            words = (closed, top / "0.png", "--on_bad", "skip")
            named = run_command(capsys, "predict", run.folder, *words)
        finally:
            closed.chmod(0o700)
    assert unreadable == (2, "", f"{picture}: may not be read; give yourself access to it\n")
    assert stopped[:2] == (2, "")
    assert stopped[2].startswith(f"{closed}: may not be read (Permission denied); give")
    assert skipped[0] == 0
    assert len(skipped[1].splitlines()) == 1 + 1
    assert f"{closed}: may not be read (Permission denied); skipped" in caplog.messages
    assert named[:2] == skipped[:2]
    assert inside[0] == 2
    assert inside[2].startswith(f"{picture}: may not be read")


def test_a_pipe_is_not_waited_for(run: Run, tmp_path: Path, capsys: Capture) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    code, _, errors = run_command(capsys, "predict", run.folder, tmp_path)
    assert (code, errors) == (2, f"{tmp_path / 'pipe.png'}: is not a regular file\n")
    code, _, errors = run_command(capsys, "predict", tmp_path / "pipe.png", tmp_path)
    assert code == 2
    assert "pipe.png: is neither a run's folder nor a model.safetensors" in errors


def test_a_pipe_or_a_device_is_not_replaced(run: Run, tmp_path: Path, capsys: Capture) -> None:
    os.mkfifo(tmp_path / "x.pt")
    words = ("--format", "torchscript", "--output", tmp_path / "x.pt")
    code, output, errors = run_command(capsys, "export", run.folder, *words)
    assert (code, output) == (2, "")
    assert "x.pt must be a file in an existing folder" in errors
    with pytest.raises(FileExistsError, match=r"x\.pt"):
        write_text(tmp_path / "x.pt", "text")
    assert [path.is_fifo() for path in tmp_path.iterdir()] == [True]


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


@pytest.mark.skipif(sys.platform != "linux", reason="names of files are bytes there")
def test_a_name_that_is_not_utf_8(run: Run, photos: Path, tmp_path: Path) -> None:
    shutil.copy(photos / "0.png", bytes(tmp_path) + b"/\xff.png")
    words = [sys.executable, "-m", "trainer", "predict", str(run.folder), str(tmp_path)]
    done = subprocess.run(
        words, cwd=REPOSITORY, env=environment(LC_ALL="C"), capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert b"/\xff.png," in done.stdout
