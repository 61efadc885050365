"""Once its results are written a run is finished, even if its report fails."""

from __future__ import annotations

import re
import threading
from pathlib import Path

import numpy as np
import pytest

from tests.commands.command import run_command
from tests.runs import Run, contents, train_forked, train_here

SHORT = ["--train.epochs", "1", "--data.train_size", "300"]


def write_data(folder: Path, seed: int = 0) -> list[str]:
    random = np.random.default_rng(seed)
    folder.mkdir(exist_ok=True)
    for part in ("train", "test"):
        pixels = random.integers(0, 256, (40, 8, 8), dtype=np.uint8)
        np.save(folder / f"n_{part}_features.npy", pixels)
        np.save(folder / f"n_{part}_targets.npy", np.arange(40) % 4)
    return ["--data.name", "npy", "--data.root", str(folder), "--train.epochs", "1"]


def test_killed_in_its_report_a_run_is_finished_and_the_report_is_written_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As when the system runs out of memory: the process is gone without a message."""
    keys = write_data(tmp_path / "data")
    (tmp_path / "matplotlib.py").write_text("import os\nos._exit(137)\n")
    monkeypatch.chdir(tmp_path)
    killed = train_forked(tmp_path / "run", 1, *keys, report=True)
    assert killed.exit_code == 137
    assert killed.json("status.json")["state"] == "finished"
    assert not (killed.folder / "report.html").exists()
    assert train_here(tmp_path / "run", *keys) == 0
    output = capsys.readouterr().out
    assert "finished: nothing is left to do" in output
    assert f"python -m trainer report {tmp_path / 'run'}" in output
    before = contents(killed.folder)
    code, output, errors = run_command(capsys, "report", killed.folder)
    assert (code, errors) == (0, "")
    after = contents(killed.folder)
    pictures = {"report.html", "curves.png", "confusion.png", "calibration.png", "mistakes.png"}
    assert after.keys() - before.keys() == pictures | {"features.png"}
    assert b"receipt.json" in before["README.md"]
    assert before.items() <= after.items()
    assert b"training images were looked at" in after["report.html"]
    train_here(tmp_path / "run", *keys)
    assert "report.html" not in capsys.readouterr().out


def test_the_report_of_other_images_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train_here(tmp_path / "run", *write_data(tmp_path / "data")) == 0
    write_data(tmp_path / "data", seed=1)
    before = contents(tmp_path / "run")
    code, output, errors = run_command(capsys, "report", tmp_path / "run")
    assert (code, output) == (2, "")
    assert "are not those that" in errors
    assert contents(tmp_path / "run") == before
    write_data(tmp_path / "moved")
    words = ["--data.root", tmp_path / "moved"]
    assert run_command(capsys, "report", tmp_path / "run", *words)[0] == 0
    before = contents(tmp_path / "run")
    damaged = [("predictions.npz", b"no arrays"), ("predictions.npz", b""), ("results.json", b"{")]
    for name, content in damaged:
        (tmp_path / "run" / name).write_bytes(content)
        code, _, errors = run_command(capsys, "report", tmp_path / "run")
        assert code == 2
        assert re.match(rf".*{name}: damaged", errors)
        assert len(errors.splitlines()) == 1
        assert contents(tmp_path / "run") == before | {name: content}
        (tmp_path / "run" / name).write_bytes(before[name])


def test_the_report_of_an_unfinished_run_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command(capsys, "report", tmp_path)[0] == 2
    assert train_here(tmp_path / "run", *SHORT, "--train.max_seconds", "0.001") == 75
    code, _, errors = run_command(capsys, "report", tmp_path / "run")
    assert code == 2
    assert "its run is not finished, but stopped" in errors


@pytest.mark.usefixtures("report")
def test_a_report_that_hangs_is_left_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    release, ends = threading.Event(), list[bool]()

    def hang(*_: object) -> None:
        ends.append(release.wait(250))

    monkeypatch.setattr("trainer.run.report.attempt.LIMIT_S", 0.5)
    monkeypatch.setattr("trainer.run.report.run_report.write_report", hang)
    assert train_here(tmp_path / "run", *SHORT) == 0
    assert ends == [], "it still hangs"
    release.set()
    assert "the report could not be written: TimeoutError: no answer within 0.5 s" in caplog.text
    assert Run(tmp_path / "run", 0).json("status.json")["state"] == "finished"


@pytest.mark.usefixtures("report")
def test_a_page_of_fewer_epochs_does_not_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError("no room")

    words = ["--schedule.name", "constant", "--data.train_size", "300", "--train.epochs"]
    assert train_here(tmp_path / "run", *words, "1") == 0
    page = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert "training images were looked at" in page
    monkeypatch.setattr("trainer.run.report.run_report.write_report", fail)
    assert train_here(tmp_path / "run", *words, "2") == 0
    assert Run(tmp_path / "run", 0).json("results.json")["train"]["epochs"] == 2
    assert not (tmp_path / "run" / "report.html").exists()


@pytest.mark.parametrize("error", [MemoryError(), SystemExit(3), KeyboardInterrupt()])
@pytest.mark.usefixtures("report")
def test_a_report_that_fails_leaves_the_run_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr("trainer.run.report.run_report.write_report", fail)
    code = train_here(tmp_path / "run", *SHORT)
    assert code == isinstance(error, KeyboardInterrupt), "only an interrupt shows in the exit code"
    run = Run(tmp_path / "run", code)
    assert run.json("status.json") == {"state": "finished", "exit_code": 0, "step": 5}
    assert train_here(tmp_path / "run", *SHORT) == 0
