"""The console, run as users run it: in its own process, on a pipe or a pseudo-terminal."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY
from trainer.base.terminal import format_table
from trainer.run.console import print_figures

ESCAPE = "\x1b"

RUN = """
import logging, time
from trainer.base.terminal import print_facts
from trainer.run.console import Progress
print_facts({"device": "cpu", "processes": "2 \\u00d7 1 thread"})
with Progress(line_every_s=LINE_EVERY_S) as progress:
    for epoch in (1, 2):
        progress.start_epoch(epoch, 2, 40, done=4)
        for done in (10, 20, 30, 40):
            time.sleep(0.12)
            progress.update(done, loss=0.4321, accuracy=0.8765, samples_per_second=12345.6)
        logging.getLogger("lockstep").warning("a warning")
        progress.end_epoch({
            "epoch": epoch, "train_loss": 0.4, "train_accuracy": 0.88,
            "validation_loss": None if epoch == 1 else 0.5,
            "validation_accuracy": None if epoch == 1 else 0.81,
            "validation_balanced_accuracy": None if epoch == 1 else 0.8,
            "validation_macro_f1": None if epoch == 1 else 1.0,
            "seconds": 12.34, "samples_per_second": 4321.0})
"""

RESULTS = """
import json, sys
from pathlib import Path
from trainer.run.console import print_results
print_results(json.loads(Path("results.json").read_text(encoding="utf-8")), Path("."))
"""


def environment(locale_name: str) -> dict[str, str]:
    """This process's environment with the locale and without what would hide it."""
    kept = {k: v for k, v in os.environ.items() if k not in ("PYTHONIOENCODING", "PYTHONUTF8")}
    return {**kept, "LC_ALL": locale_name, "PYTHONPATH": str(REPOSITORY), "TERM": "xterm"}


def on_pipe(code: str, folder: Path) -> tuple[str, str]:
    """Standard output and standard error of the program, both on pipes."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        env=environment("C.UTF-8"),
        capture_output=True,
        check=True,
        timeout=60,
    )
    return done.stdout.decode("utf-8"), done.stderr.decode("utf-8")


def on_terminal(code: str, folder: Path, locale_name: str = "C.UTF-8") -> tuple[bytes, int]:
    """Everything that the program sends to a terminal of 80 columns, and its exit code."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    with subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=folder,
        env=environment(locale_name),
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    ) as process:
        os.close(theirs)
        sent = b""
        while True:
            try:
                part = os.read(ours, 65536)
            except OSError:  # Linux's way to say that the other end is closed
                break
            if not part:
                break
            sent += part
        exit_code = process.wait(timeout=60)
    os.close(ours)
    return sent, exit_code


def screen_lines(sent: bytes) -> list[str]:
    """The lines left on the screen: a carriage return overwrites its line, ESC [A goes up."""
    text = sent.decode("utf-8").replace("\r\n", "\n")
    return [
        line.replace(f"{ESCAPE}[A", "").rsplit("\r", 1)[-1].rstrip() for line in text.split("\n")
    ]


def write_results(folder: Path, names: list[str], lab: bool = True) -> None:
    rows = [
        {
            "name": name,
            "support": 1000,
            "correct": 900 - 100 * place,
            "accuracy": 0.9 - 0.1 * place,
            "precision": 0.5,
            "recall": 0.9 - 0.1 * place,
            "f1": 0.6,
        }
        for place, name in enumerate(names)
    ]
    test = {
        "accuracy": 0.85,
        "samples": 1000 * len(names),
        "per_class": rows,
        "worst_class": names[-1],
    }
    if lab:
        test["lab_accuracy"] = 0.912
    text = json.dumps({"test": test}, ensure_ascii=False)
    (folder / "results.json").write_text(text, encoding="utf-8")
    for name in ("report.html", "curves.png", "model.safetensors"):
        (folder / name).touch()


def test_pipe_gets_one_plain_line_an_epoch(tmp_path: Path) -> None:
    output, errors = on_pipe(RUN.replace("LINE_EVERY_S", "30.0"), tmp_path)
    assert ESCAPE not in output + errors
    assert "\r" not in output + errors
    lines = output.splitlines()
    assert lines[:2] == ["device     cpu", "processes  2 × 1 thread"]
    epochs = [line for line in lines if re.match(r" +\d/2 ", line)]
    assert len(epochs) == 2
    assert " ".join(epochs[0].split()) == "1/2 0.4000 88.00 % - - - - 12.3 s 4,321/s"
    shares = "81.00 % 80.00 % 100.00 %"
    assert " ".join(epochs[1].split()) == f"2/2 0.4000 88.00 % 0.5000 {shares} 12.3 s 4,321/s"
    assert sum("macro F1" in line for line in lines) == 1
    assert errors.splitlines() == ["a warning"] * 2
    assert max(map(len, lines)) <= 80


def test_pipe_gets_lines_within_a_long_epoch(tmp_path: Path) -> None:
    output, _ = on_pipe(RUN.replace("LINE_EVERY_S", "0.3"), tmp_path)
    within = [line for line in output.splitlines() if "step" in line]
    # Updates come after 0.12, 0.24, 0.36 and 0.48 s: only the third is due.
    assert 2 <= len(within) <= 4
    assert re.fullmatch(r" +1/2 +step \d0/40: loss 0.4321, acc 87.65 %, 12,346 img/s", within[0])


def test_terminal_shows_a_bar_and_keeps_the_lines(tmp_path: Path) -> None:
    sent, exit_code = on_terminal(RUN.replace("LINE_EVERY_S", "30.0"), tmp_path)
    assert exit_code == 0
    text = sent.decode("utf-8")
    assert re.search(r"epoch 1/2 +75%\|█+.* 30/40 .*loss 0.4321, acc 87.65 %, 12,346 img/s", text)
    assert re.search(r"epoch 1/2 +10%", text), "the bar starts where the epoch was resumed"
    lines = screen_lines(sent)
    assert "a warning" in lines
    assert sum(line.startswith("  1/2   ") for line in lines) == 1
    assert not any("30/40" in line for line in lines), "the bar is gone at the end"


def test_bar_is_ascii_where_the_locale_is(tmp_path: Path) -> None:
    sent, exit_code = on_terminal(RUN.replace("LINE_EVERY_S", "30.0"), tmp_path, "C")
    assert exit_code == 0
    bars = [part for part in sent.split(b"\r") if b"30/40" in part]
    assert bars
    assert all(part.isascii() for part in bars)


def test_an_exception_leaves_the_terminal_clean(tmp_path: Path) -> None:
    code = (
        "from trainer.run.console import Progress\n"
        "with Progress() as progress:\n"
        "    progress.start_epoch(1, 3, 10)\n"
        "    progress.update(5, 0.5, 0.5, 100.0)\n"
        "    raise RuntimeError('the training broke')\n"
    )
    sent, exit_code = on_terminal(code, tmp_path)
    assert exit_code == 1
    lines = screen_lines(sent)
    assert lines[0].startswith("Traceback")
    assert "RuntimeError: the training broke" in lines


def test_results_show_accuracy_classes_worst_and_files(tmp_path: Path) -> None:
    write_results(tmp_path, ["T-shirt/top", "Shirt"])
    output, _ = on_pipe(RESULTS, tmp_path)
    assert ESCAPE not in output
    lines = output.splitlines()
    assert "test accuracy  85.00 %  (1,700 of 2,000)" in lines
    assert "lab accuracy   91.20 %  (first 1,000 test images)" in lines
    shirt = next(line for line in lines if line.startswith("Shirt"))
    assert " ".join(shirt.split()) == "Shirt 1,000 80.00 % 50.00 % 80.00 % 60.00 % <- worst"
    assert sum("<- worst" in line for line in lines) == 1
    assert "worst class    Shirt, 80.00 %" in lines
    assert "report         report.html" in lines
    assert "model          model.safetensors" in lines
    assert "mistakes" not in output, "a picture that was not made is not promised"


def test_a_class_without_images_has_no_figures(capsys: pytest.CaptureFixture[str]) -> None:
    seen = {"name": "a", "support": 4, "correct": 1, "accuracy": 0.25, "precision": 1.0}
    unseen = {"name": "b", "support": 0, "correct": 0, "accuracy": 0.0, "precision": 0.0}
    rows = [row | {"recall": row["accuracy"], "f1": 0.0} for row in (seen, unseen)]
    figures = {"accuracy": 0.25, "samples": 4, "per_class": rows, "worst_class": "a"}
    print_figures(figures, "test")
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["b", "0", "-", "-", "-", "-"] in lines


def test_columns_are_straight_behind_letters_of_any_width() -> None:
    """A Chinese letter takes the place of two, an accent that is a letter of its own none."""
    names = ["cat", "\u8774\u8776", "cafe\N{COMBINING ACUTE ACCENT}", "\N{BUTTERFLY} b"]
    lines = format_table([(name, "1") for name in names])
    assert lines == [f"{names[0]}   1", f"{names[1]}  1", f"{names[2]}  1", f"{names[3]}  1"]


def test_results_without_lab_accuracy(tmp_path: Path) -> None:
    write_results(tmp_path, ["a", "b"], lab=False)
    output, _ = on_pipe(RESULTS, tmp_path)
    assert "lab accuracy" not in output


@pytest.mark.parametrize("encoding", ["ascii", "utf-8", "latin-1"])
def test_results_fit_80_columns_in_any_encoding(tmp_path: Path, encoding: str) -> None:
    write_results(tmp_path, ["Стул", "椅子", "a chair with an excessively long name"])
    done = subprocess.run(
        [sys.executable, "-c", RESULTS],
        cwd=tmp_path,
        env=environment("C") | {"PYTHONIOENCODING": encoding},
        capture_output=True,
        check=True,
        timeout=60,
    )
    lines = done.stdout.decode(encoding).splitlines()
    assert max(map(len, lines[:-4])) <= 80
    assert any(line.startswith("Стул" if encoding == "utf-8" else "????") for line in lines)
    assert any(line.startswith("a chair with an ex...") for line in lines)


def test_import_is_light() -> None:
    code = (
        "import sys, trainer.run.console\n"
        "print([name for name in ('tqdm', 'torch', 'numpy') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert done.stdout.strip() == "[]"
