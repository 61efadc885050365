"""Locks: who is waited for is named, no wait is endless, and a disk without locks will do."""

from __future__ import annotations

import errno
import fcntl
import os
import platform
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import REPOSITORY
from tests.runs import train_here
from trainer.base import locks
from trainer.base.errors import UserError

KEEP_LOCK = """
import sys, time
from pathlib import Path
from trainer.base import locks
path, seconds, alive = Path(sys.argv[1]), float(sys.argv[2]), sys.argv[3] == "alive"
locks.BEAT_S = 0.1
if alive:
    with locks.lock_file(path, "works", "none"):
        print("held", flush=True)
        time.sleep(seconds)
else:
    lock = locks.try_lock(path, "none")
    print("held", flush=True)
    time.sleep(seconds)
"""


@pytest.fixture
def lock_apart(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts processes that have the lock on tmp_path / ".lock"."""
    started: list[subprocess.Popen[str]] = []

    def start(seconds: float, kind: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", KEEP_LOCK, str(tmp_path / ".lock"), str(seconds), kind]
        process = subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True)
        started.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def wait_for(path: Path) -> float:
    begin_s = time.monotonic()
    with locks.lock_file(path, "decodes these pictures", "none") as is_exclusive:
        assert is_exclusive
    return time.monotonic() - begin_s


def test_who_is_waited_for_is_said(
    tmp_path: Path,
    lock_apart: Any,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(locks, "SAID_AFTER_S", 0.1)
    monkeypatch.setattr(locks, "SILENT_S", 1.0)
    process = lock_apart(2.5, "alive")  # longer than one without a sign of life is waited for
    assert wait_for(tmp_path / ".lock") > 1.5
    assert process.wait() == 0
    (message,) = caplog.messages
    who = f"process {process.pid} on {platform.node()} since "
    assert message.startswith(f"waiting for {who}")
    assert f"which decodes these pictures (for 0 s now; lock {tmp_path / '.lock'})" in message


def test_a_process_without_a_sign_of_life_is_not_waited_for(
    tmp_path: Path, lock_apart: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locks, "SILENT_S", 0.5)
    process = lock_apart(60, "silent")
    who = re.escape(f"{tmp_path / '.lock'}: process {process.pid} on {platform.node()} since ")
    with pytest.raises(UserError, match=f"^{who}.* no sign of life .*; end it and start again"):
        wait_for(tmp_path / ".lock")


def test_a_lock_file_that_is_left_is_not_waited_for(tmp_path: Path, lock_apart: Any) -> None:
    process = lock_apart(60, "alive")
    process.kill()
    process.wait()
    assert (tmp_path / ".lock").read_text().startswith(f"process {process.pid} on ")
    assert wait_for(tmp_path / ".lock") < 5
    assert (tmp_path / ".lock").read_text() == ""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_another_program_that_has_the_lock_is_known(tmp_path: Path, lock_apart: Any) -> None:
    process = lock_apart(60, "silent")
    (tmp_path / ".lock").write_text("")
    assert (
        locks.describe_holder(tmp_path / ".lock") == f"process {process.pid} on {platform.node()}"
    )


def test_the_run_that_is_in_the_way_is_named(
    tmp_path: Path, lock_apart: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    process = lock_apart(60, "silent")
    assert train_here(tmp_path) == 2
    who = f"process {process.pid} on {platform.node()} since "
    assert f"output_dir: {tmp_path} is in use by another run: {who}" in capsys.readouterr().err


@pytest.mark.parametrize("code", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_where_there_are_no_locks_it_goes_on_with_a_warning(
    tmp_path: Path,
    code: int,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fail(*_: Any) -> None:
        raise OSError(code, os.strerror(code))

    (tmp_path / ".lock").write_text("process 1 on another")  # of other days
    monkeypatch.setattr(fcntl, "flock", fail)
    with locks.lock_file(tmp_path / ".lock", "works", "do not start two") as is_exclusive:
        assert not is_exclusive
    expected = f"{tmp_path / '.lock'}: cannot be locked here ({os.strerror(code)}); do not start"
    assert expected in caplog.text
    if code == errno.ENOSYS:
        assert train_here(tmp_path / "run", "--train.epochs", "2") == 0
        assert f"{tmp_path / 'run' / '.lock'}: cannot be locked here" in caplog.text
