"""metrics.jsonl has every line once, after a full disk, a kill and a rollback."""

from __future__ import annotations

import errno
import json
import resource
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from trainer.base.errors import UserError
from trainer.run.metrics_log import MetricsLog

STEPS = [{"event": "step", "epoch": 1, "step": step, "loss": 2 / step} for step in range(1, 6)]
EPOCH = {"event": "epoch", "epoch": 1, "train_loss": 1.25, "validation_loss": None}


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_records_are_appended_a_line_each(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path / "metrics.jsonl")
    log.write(STEPS[:2])
    log.write([])
    log.write([EPOCH])
    assert lines(tmp_path / "metrics.jsonl") == [*STEPS[:2], EPOCH], "nothing waits in a buffer"
    log.sync()
    assert log.length_bytes == (tmp_path / "metrics.jsonl").stat().st_size
    log.close()


def test_losses_are_exact_and_non_finite_ones_null(tmp_path: Path) -> None:
    losses = [float(np.float32(0.1)), 1e-300, float("nan"), float("inf"), float("-inf")]
    log = MetricsLog(tmp_path / "metrics.jsonl")
    log.write([{"event": "step", "loss": loss} for loss in losses])
    log.close()
    read = [record["loss"] for record in lines(tmp_path / "metrics.jsonl")]
    assert read == [losses[0], losses[1], None, None, None]


def test_resume_cuts_what_the_checkpoint_did_not_see(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    log = MetricsLog(path)
    log.write(STEPS[:2])
    length_bytes = log.length_bytes
    log.write(STEPS[2:4])
    log.close()
    with path.open("a") as file:
        file.write('{"event": "st')  # killed in the middle of a line
    log = MetricsLog(path, length_bytes)
    log.write(STEPS[2:])
    assert log.length_bytes == path.stat().st_size
    log.close()
    assert lines(path) == STEPS


def test_a_new_run_starts_an_empty_file(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text("old\n", encoding="utf-8")
    MetricsLog(path).close()
    assert path.read_bytes() == b""


@pytest.mark.parametrize("content", [None, b'{"event": "step"}\n'])
def test_a_file_that_is_too_short_is_refused_and_kept(
    tmp_path: Path, content: bytes | None
) -> None:
    path = tmp_path / "metrics.jsonl"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=r"metrics\.jsonl: (has 18 bytes, but had 1000|cannot be)"):
        MetricsLog(path, length_bytes=1000)
    assert (path.read_bytes() if path.exists() else None) == content


@pytest.fixture
def room() -> Iterator[Any]:
    """Limit how long files of this process may be, which fails as a full disk does."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    yield lambda size_bytes: resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, before[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    signal.signal(signal.SIGXFSZ, handler)


def test_what_a_full_disk_does_not_take_waits_and_is_written_later(
    tmp_path: Path, room: Any, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "metrics.jsonl"
    log = MetricsLog(path)
    room(100)
    for record in STEPS:
        log.write([record])
    assert path.stat().st_size == 100
    assert caplog.text.count("its lines wait in memory") == 1
    with pytest.raises(OSError) as raised:  # no checkpoint may count on it
        log.sync()
    assert raised.value.errno == errno.EFBIG
    length_bytes = log.length_bytes
    room(resource.RLIM_INFINITY)
    log.sync()
    assert path.stat().st_size == length_bytes == log.length_bytes
    assert lines(path) == STEPS
    log.close()


def test_going_back_forgets_also_what_waits(tmp_path: Path, room: Any) -> None:
    path = tmp_path / "metrics.jsonl"
    log = MetricsLog(path)
    log.write(STEPS[:1])
    length_bytes = log.length_bytes
    room(length_bytes + 10)
    log.write(STEPS[2:])
    log.cut(length_bytes)
    room(resource.RLIM_INFINITY)
    log.write(STEPS[1:])
    log.sync()
    assert lines(path) == STEPS
    log.close()
