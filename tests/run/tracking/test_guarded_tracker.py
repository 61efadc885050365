"""The guard around a tracker: one thread, copies, and one warning instead of a lost training."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import pytest

from trainer.config.schema import RunConfig, replace
from trainer.run.tracking import tracker, trackers
from trainer.run.tracking.tracker import GuardedTracker

RECORD = {"event": "step", "epoch": 1, "step": 1, "loss": 1.0, "lr": 0.1}


class Spoiler:
    """Notes its calls and their threads, and changes what it is given."""

    def __init__(self) -> None:
        self.calls: list[Any] = []
        self.threads = {threading.current_thread()}

    def note(self, call: str, value: Any = None) -> None:
        self.calls.append((call, value))
        self.threads.add(threading.current_thread())

    def log(self, record: dict[str, Any]) -> None:
        self.note("log", record["step"])
        record.clear()

    def mark_stopped(self) -> None:
        self.note("mark_stopped")

    def finish(self, results: dict[str, Any] | None) -> None:
        self.note("finish", results)


@pytest.mark.parametrize("stopped", [False, True])
def test_calls_come_from_one_thread_with_copies(stopped: bool) -> None:
    made: list[Spoiler] = []

    def start() -> Spoiler:
        made.append(Spoiler())
        return made[0]

    guarded = GuardedTracker("mine", start)
    assert made == []  # the first step does not wait for it
    record = dict(RECORD)
    guarded.log([record, record | {"step": 2}])
    guarded.finish(None, stopped=stopped)
    (own,) = made
    assert record == RECORD
    assert own.calls == [
        ("log", 1),
        ("log", 2),
        *[("mark_stopped", None)] * stopped,
        ("finish", None),
    ]
    (thread,) = own.threads
    assert thread is not threading.current_thread()


@pytest.mark.parametrize("way", ["hang", "fail"])
def test_a_tracker_that_hangs_or_fails_is_one_warning(
    way: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken(Spoiler):
        def log(self, record: dict[str, Any]) -> None:
            if way == "fail":
                raise SystemExit("out of order\nand more")
            time.sleep(20)

    abandoned: list[bool] = []
    monkeypatch.setattr(tracker, "CALL_TIMEOUT_S", 0.2)
    guarded = GuardedTracker("mine", Broken, lambda: abandoned.append(True))
    begin_s = time.monotonic()
    for _ in range(3):
        guarded.log([RECORD])
    guarded.finish({}, stopped=False)
    assert time.monotonic() - begin_s < 10
    (warning,) = caplog.messages
    why = "out of order" if way == "fail" else "no answer within 0.2 s"
    assert warning == f"mine is off from here on; metrics.jsonl has everything: {why}"
    assert abandoned == [True]


def test_an_interrupt_does_not_wait_for_a_tracker_again(monkeypatch: pytest.MonkeyPatch) -> None:
    called, release = threading.Event(), threading.Event()

    class Hanging(Spoiler):
        def log(self, record: dict[str, Any]) -> None:
            called.set()
            release.wait(20)

    def interrupt(*_: object) -> None:
        called.wait(20)
        raise KeyboardInterrupt

    guarded = GuardedTracker("hanging", Hanging)
    guarded.log([])  # it starts
    with monkeypatch.context() as patch:
        patch.setattr(tracker.Future, "result", interrupt)
        with pytest.raises(KeyboardInterrupt):
            guarded.log([RECORD])
    begin_s = time.monotonic()
    guarded.finish(None, stopped=False)
    assert time.monotonic() - begin_s < 5
    release.set()
    for thread in threading.enumerate():
        if thread.name == "tracker hanging":
            thread.join(5)
    assert not any(thread.name == "tracker hanging" for thread in threading.enumerate())


def test_a_file_that_is_edited_before_the_start_is_one_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "mine.py"
    file.write_text("class Mine: ...\n")
    keys = {"tracking.wandb": "disabled", "tracking.plugin": f"{file}:Mine"}
    config = replace(RunConfig(), keys)
    trackers.check(config)
    file.write_text("1 / 0\n")
    (own,) = trackers.start(config, tmp_path, "abc123", 0)
    assert caplog.messages == []  # it starts with the first record
    own.log([RECORD])
    (warning,) = caplog.messages
    assert "is off from here on" in warning
    assert "does not run: ZeroDivisionError" in warning
