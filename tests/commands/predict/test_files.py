"""Files and folders that `python -m trainer predict` reads, leaves out or refuses."""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.commands.command import Capture, run_command
from tests.commands.predict.predicting import predict
from tests.conftest import REPOSITORY
from tests.data.archives import picture, write_tar
from tests.distributed.launch import environment
from tests.runs import Run
from trainer.base.files import write_text


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


@pytest.mark.skipif(sys.platform != "linux", reason="names of files are bytes there")
def test_a_name_that_is_not_utf_8(run: Run, photos: Path, tmp_path: Path) -> None:
    shutil.copy(photos / "0.png", bytes(tmp_path) + b"/\xff.png")
    words = [sys.executable, "-m", "trainer", "predict", str(run.folder), str(tmp_path)]
    done = subprocess.run(
        words, cwd=REPOSITORY, env=environment(LC_ALL="C"), capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert b"/\xff.png," in done.stdout
