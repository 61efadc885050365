"""Whole sweeps: killed, shared by two commands, with trials that fail and that are given up."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import statistics
import time
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest

from tests.browser import CHROMIUM, Browser
from tests.commands.command import Capture, run_command
from tests.data.picture_folders import write_digits
from tests.distributed.launch import run_forked, start_forked
from tests.runs import Run, contents, train_here, words

TRIALS = 8
AT_ONCE = 2
SPACE = """
optimizer.lr: [1e-3, 0.02, 0.03, 1e30]
optimizer.weight_decay: {low: 1e-3, high: 0.1, log: true}
train.batch_size: {low: 40, high: 60, step: 10}
model.args: [{widths: [8, 8, 8]}, {widths: [8, 16, 16]}]
"""
# Texts of the plot that its edges cut.
CLIPPED = """(() => {
  const svg = document.querySelector('svg.coordinates'), box = svg.getBoundingClientRect();
  return Array.from(svg.querySelectorAll('text')).filter(text => {
    const own = text.getBoundingClientRect();
    return own.left < box.left || own.right > box.right;
  }).map(text => text.textContent);
})()"""
SHORT = ["--train.epochs", "2", "--data.train_size", "400", "--data.validation_size", "100"]


def command_words(folder: Path, *more: str) -> list[str]:
    """The command for a short sweep."""
    space = folder.parent / "space.yaml"
    if not space.exists():
        space.write_text(SPACE)
    own = ["--space", str(space), "--trials", str(TRIALS), "--at_once", str(AT_ONCE)]
    return ["sweep", *own, *words(folder, *SHORT, "--processes", "1", "--seed", "2", *more)]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished sweep that nothing has disturbed, by one worker."""
    folder = tmp_path_factory.mktemp("sweep") / "S"
    done = run_forked(1, folder.parent, "-m", "trainer", *command_words(folder, "--json"))
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == result(folder)
    assert done.stderr.count("trial ") == TRIALS
    return folder


def result(folder: Path) -> dict[str, Any]:
    """What sweep.json contains."""
    found: dict[str, Any] = json.loads((folder / "sweep.json").read_text())
    return found


def without_times(folder: Path) -> dict[str, Any]:
    """The result without what differs from sweep to sweep: times, and the folder."""
    found = json.loads(json.dumps(result(folder)).replace(str(folder), "S"))
    for trial in found["trials"]:
        del trial["elapsed_s"]
    return found


def of_state(folder: Path, state: str) -> list[dict[str, Any]]:
    return [trial for trial in result(folder)["trials"] if trial["state"] == state]


def test_killed_and_shared_by_two_commands_it_ends_as_an_undisturbed_one(
    whole: Path, tmp_path: Path
) -> None:
    folder, started = tmp_path / "S", list[BaseProcess]()

    def start(*more: str) -> BaseProcess:
        (tmp_path / str(len(started))).mkdir()
        own = ["-m", "trainer", *command_words(folder, *more)]
        process = start_forked(tmp_path / str(len(started)), *own)
        started.append(process)
        return process

    def errors() -> str:
        return (tmp_path / str(len(started) - 1) / "err").read_text()

    def wait_for(trial: int) -> None:
        """Until a trial's run has begun to train, by the command that was started last."""
        metrics = folder / f"trial-{trial:04d}" / "metrics.jsonl"
        while not (metrics.exists() and metrics.stat().st_size):
            assert started[-1].is_alive(), errors()
            time.sleep(0.02)

    try:
        process = start("--workers", "2")
        wait_for(1)
        process.terminate()
        process.join()
        assert process.exitcode == 75, errors()
        assert "the same command goes on" in errors()

        first = start()
        wait_for(3)
        second = start("--workers", "2")
        wait_for(5)
        first.kill()  # its trial is left to the other command
        second.join()
        assert second.exitcode == 0, errors()
    finally:
        for process in started:
            process.kill()
    assert without_times(folder) == without_times(whole)


def test_trials_are_given_up_and_fail_and_the_sweep_goes_on(whole: Path) -> None:
    for trial in of_state(whole, "failed"):
        assert trial["keys"]["optimizer.lr"] == 1e30
        assert trial["reason"].startswith("the loss of step")
        assert trial["figure"] is None
    assert of_state(whole, "failed")
    # Of two epochs only the first can end with a trial being given up.
    curves = [trial["curve"] for trial in result(whole)["trials"]]
    seen = [
        [curve[0] for curve in curves[: max(n - AT_ONCE + 1, 0)] if curve] for n in range(TRIALS)
    ]
    behind = [
        number
        for number, curve in enumerate(curves)
        if curve and len(seen[number]) >= 5 and curve[0] < statistics.median(seen[number])
    ]
    assert [trial["trial"] for trial in of_state(whole, "pruned")] == behind
    for trial in of_state(whole, "pruned"):
        assert trial["epochs"] == 1
    for trial in of_state(whole, "complete"):
        assert trial["epochs"] == 2
        assert trial["figure"] == max(trial["curve"])


def test_only_the_best_trial_is_tested(whole: Path) -> None:
    best = result(whole)["best"]
    complete = of_state(whole, "complete")
    assert best["figure"] == max(trial["figure"] for trial in complete)
    tested = [path.parent.name for path in whole.glob("trial-*/results.json")]
    assert tested == [f"trial-{best['trial']:04d}"]
    run = Run(whole / tested[0], 0)
    assert run.json("status.json")["state"] == "finished"
    assert best["test"]["accuracy"] == run.json("results.json")["test"]["accuracy"]
    assert not list(whole.glob("trial-*/predictions.npz"))[1:]


def test_a_trial_has_the_bits_of_its_command_and_can_be_finished(
    whole: Path, tmp_path: Path
) -> None:
    best = result(whole)["best"]["trial"]
    trial = next(each for each in of_state(whole, "complete") if each["trial"] != best)
    python, script, *arguments = shlex.split(trial["command"])
    assert (python, script) == ("python", "train.py")
    *arguments, option, folder = arguments
    assert (option, folder) == ("--output_dir", str(whole / f"trial-{trial['trial']:04d}"))
    by_hand, in_place = Run(tmp_path / "by_hand", 0), Run(tmp_path / "in_place", 0)
    shutil.copytree(folder, in_place.folder)
    for run in (by_hand, in_place):
        assert train_here(run.folder, *arguments[2:]) == 0
        assert run.digest == trial["final_weights_sha256"]
    for name in ("predictions.npz", "receipt.json"):
        assert (by_hand.folder / name).read_bytes() == (in_place.folder / name).read_bytes()


def test_the_page_has_the_best_as_commands_and_what_failed(whole: Path) -> None:
    page = re.sub("</?span>", "", (whole / "sweep.html").read_text())
    with_figure = len(of_state(whole, "complete")) + len(of_state(whole, "pruned"))
    assert page.count("<polyline") == with_figure
    assert page.count("python train.py --config") == min(5, len(of_state(whole, "complete")))
    for trial in of_state(whole, "failed"):
        assert f"Trial {trial['trial']}</dt>" in page
    best = result(whole)["best"]["trial"]
    weight_decay = result(whole)["trials"][best]["keys"]["optimizer.weight_decay"]
    assert f"optimizer.weight_decay {weight_decay}" in page
    assert "object at 0x" not in page


def test_a_finished_sweep_is_shown_again_after_half_a_line_in_its_journal(
    whole: Path, tmp_path: Path, capsys: Capture
) -> None:
    folder = tmp_path / "S"
    shutil.copytree(whole, folder)
    with (folder / "journal.log").open("a") as journal:
        journal.write('{"op_code":6,"wor')
    code, output, errors = run_command(capsys, *command_words(folder, "--json"))
    assert code == 0, errors
    assert json.loads(output) == result(folder)
    assert without_times(folder) == without_times(whole)
    best = result(whole)["best"]["trial"]
    other = next(trial["trial"] for trial in of_state(whole, "complete") if trial["trial"] != best)
    tested = folder / f"trial-{best:04d}" / "results.json"
    shutil.copy(tested, folder / f"trial-{other:04d}")
    code, output, _ = run_command(capsys, *command_words(folder))
    assert code == 0
    assert re.search(
        f"test accuracy of trial {best} .*, which trial {other} has classified", output
    )
    assert result(folder)["best"]["others_tested"] == [other]


def test_the_page_fits_a_phone(whole: Path, tmp_path: Path) -> None:
    if CHROMIUM is None:
        pytest.skip("chromium is not installed")
    with Browser(tmp_path) as browser:
        for width in (320, 390, 1280):
            look = browser.open(whole / "sweep.html", width, dark=width == 390)
            assert (look.complaints, look.requests, look.width) == ([], [], width)
            assert "What the trials tried" in look.text
            clipped = browser.evaluate(CLIPPED)
            assert clipped == []


def test_a_sweep_whose_time_is_over_does_not_begin_its_test(
    whole: Path, tmp_path: Path, capsys: Capture
) -> None:
    folder = tmp_path / "S"
    shutil.copytree(whole, folder)
    best = folder / f"trial-{result(whole)['best']['trial']:04d}"
    shutil.rmtree(best)
    code, _, errors = run_command(capsys, *command_words(folder, "--train.max_seconds", "0.001"))
    assert code == 75, errors
    assert not best.exists()


def test_a_damaged_journal_has_one_message(whole: Path, tmp_path: Path, capsys: Capture) -> None:
    folder = tmp_path / "S"
    folder.mkdir()
    content = (whole / "journal.log").read_bytes()
    (folder / "journal.log").write_bytes(content[:40] + b"\xff" + content[41:])
    code, _, errors = run_command(capsys, *command_words(folder))
    assert code == 2
    assert f"{folder / 'journal.log'}: is damaged" in errors
    assert len(errors.splitlines()) == 1
    (folder / "journal.log").write_bytes(b"")
    (folder / "trial-0000").mkdir()
    code, _, errors = run_command(capsys, *command_words(folder))
    assert code == 2
    assert f"{folder / 'journal.log'}: has lost what its sweep is" in errors


def test_a_start_that_was_killed_between_its_two_first_lines_goes_on(
    whole: Path, tmp_path: Path, capsys: Capture
) -> None:
    folder = tmp_path / "S"
    folder.mkdir()
    lines = (whole / "journal.log").read_bytes().splitlines(keepends=True)
    (folder / "journal.log").write_bytes(lines[0])
    late = ["--train.max_seconds", "0.001"]
    for _ in range(2):
        code, _, errors = run_command(capsys, *command_words(folder, *late))
        assert code == 75, errors
    assert (folder / "journal.log").read_bytes().count(b'"definition"') == 1


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--train.epochs", "3"], "holds another sweep; .*train.epochs: 3 against 2"),
        (["--at_once", "1"], "at_once: 1 against 2"),
        (["--pruning", "none"], "pruning: none against median"),
        (["--workers", "3"], "--workers: 3 are more than --at_once, 2"),
        (["--resume", "none"], "resume: must be auto for a sweep"),
        (["--data.validation_size", "0"], "judged on validation images"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_another_sweep_is_refused(
    whole: Path, capsys: Capture, more: list[str], message: str
) -> None:
    before = contents(whole)
    code, _, errors = run_command(capsys, *command_words(whole, *more))
    assert code == 2
    assert len(errors.splitlines()) == 1

    assert re.search(message, errors)
    assert contents(whole) == before


def test_a_folder_with_a_run_is_refused(whole: Path, capsys: Capture) -> None:
    trial = whole / "trial-0000"
    space = ["--space", str(whole.parent / "space.yaml")]
    code, _, errors = run_command(capsys, "sweep", *space, *words(trial, *SHORT))
    assert code == 2
    assert f"{trial} contains a run, not a sweep" in errors
    assert not (trial / "journal.log").exists()


def test_what_is_wrong_with_all_trials_ends_the_sweep_and_is_put_right(
    tmp_path: Path, capsys: Capture
) -> None:
    folder, pictures = tmp_path / "S", tmp_path / "pictures"
    (tmp_path / "space.yaml").write_text("optimizer.lr: {low: 1e-3, high: 0.1, log: true}")
    own = ["--data.name", "folder", "--data.root", str(pictures), "--train.epochs", "1"]
    words = command_words(folder, *own, "--trials", "5", "--json")

    done = run_forked(1, tmp_path, "-m", "trainer", *words)
    assert done.returncode == 2
    assert "the first 5 trials failed alike" in done.stderr
    assert "--retry_failed" in done.stderr
    assert "pictures" in done.stderr.splitlines()[-1]

    write_digits(pictures, test=20)
    assert run_command(capsys, *words)[0] == 2, "what has failed stays so"
    again = run_forked(1, tmp_path, "-m", "trainer", *words, "--retry_failed")
    assert again.returncode == 0, again.stderr
    assert len(of_state(folder, "complete")) == 5
    assert [trial["reason"] for trial in result(folder)["trials"]] == [None] * 5
    code, output, _ = run_command(capsys, *words)
    assert (code, json.loads(output)) == (0, json.loads(again.stdout))
