"""Closed pipes, terminals that have gone, a full disk for the log: no work is lost."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path
from typing import IO

import pytest

from tests.conftest import REPOSITORY
from tests.distributed.launch import environment
from tests.runs import command

TRAINER = [sys.executable, "-m", "trainer"]

SCRIPT = [*TRAINER, "submit", "--script", "run.sbatch"]
"""a command that prints, and soon"""

WORK = """
import sys
from pathlib import Path
from trainer.base import output_streams
end = output_streams.READER_GONE
if sys.argv[1] == "training":
    end += output_streams.DISK_FULL
with output_streams.ignore_write_errors(end):
    for number in range(20000):
        print("line", number, flush=number % 10 == 0)
        print("warning", number, file=sys.stderr)
    # The next file must not get the number of a stream that was closed at the start.
    with open("opened", "w") as opened:
        Path("number").write_text(str(opened.fileno()))
        sys.stdout.flush()
Path("done").touch()
"""


def closed_pipe() -> int:
    reading, writing = os.pipe()
    os.close(reading)
    return writing


def gone_terminal() -> int:
    ours, theirs = pty.openpty()
    os.close(ours)
    return theirs


def full_disk() -> int:
    return os.open("/dev/full", os.O_WRONLY)


def exit_code_of(
    words: list[str], folder: Path, output: int | IO[str], errors: int | IO[str]
) -> int:
    done = subprocess.run(
        words,
        cwd=folder,
        env=environment(PYTHONPATH=str(REPOSITORY)),
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=errors,
        check=False,
        timeout=120,
    )
    return done.returncode


@pytest.mark.skipif(sys.platform != "linux", reason="has /dev/full")
@pytest.mark.parametrize("make", [closed_pipe, gone_terminal, full_disk])
def test_work_goes_on_without_a_screen(tmp_path: Path, make: object) -> None:
    assert callable(make)
    screen = make()
    words = [sys.executable, "-c", WORK, "training"]
    assert exit_code_of(words, tmp_path, screen, screen) == 0
    assert (tmp_path / "done").exists()
    if make is closed_pipe:
        assert exit_code_of([*TRAINER, "models", "none"], tmp_path, screen, screen) == 2
    os.close(screen)


def test_streams_that_are_closed_at_the_start(tmp_path: Path) -> None:
    words = ["sh", "-c", 'exec "$@" >&- 2>&-', "sh", sys.executable, "-c", WORK, "reading"]
    assert exit_code_of(words, tmp_path, subprocess.DEVNULL, subprocess.DEVNULL) == 0
    assert (tmp_path / "done").exists()
    assert int((tmp_path / "number").read_text()) > 2
    assert (tmp_path / "opened").read_text() == ""


def test_a_training_whose_reader_has_gone_is_finished(tmp_path: Path) -> None:
    run = tmp_path / "run"
    with (tmp_path / "errors").open("w") as errors:
        pipe = closed_pipe()
        assert exit_code_of(command(run, "--train.epochs", "2"), tmp_path, pipe, errors) == 0
        os.close(pipe)
    assert json.loads((run / "status.json").read_text())["state"] == "finished"
    assert "Traceback" not in (tmp_path / "errors").read_text()


def test_a_command_whose_reader_has_gone_ends_quietly(tmp_path: Path) -> None:
    with (tmp_path / "errors").open("w") as errors:
        pipe = closed_pipe()
        assert exit_code_of(SCRIPT, tmp_path, pipe, errors) == 0
        assert exit_code_of([*SCRIPT, "--help"], tmp_path, pipe, errors) == 0
        os.close(pipe)
    assert (tmp_path / "errors").read_text() == ""


@pytest.mark.skipif(sys.platform != "linux", reason="has /dev/full")
def test_what_a_command_cannot_write_is_an_error(tmp_path: Path) -> None:
    with (tmp_path / "errors").open("w") as errors:
        assert exit_code_of(SCRIPT, tmp_path, full_disk(), errors) == 2
    message = "standard output: No space left on device; make room and start again\n"
    assert (tmp_path / "errors").read_text() == message


def test_names_that_are_no_text_are_printed(tmp_path: Path) -> None:
    done = subprocess.run(
        [*SCRIPT[:-1], b"caf\xe9.sbatch"],
        cwd=tmp_path,
        env=environment(PYTHONPATH=str(REPOSITORY), PYTHONIOENCODING="utf-8:strict"),
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert rb"caf\udce9.sbatch" in done.stdout
