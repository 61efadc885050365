"""After a kill or a request to stop, the same command ends the run as if undisturbed."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import psutil
import pytest

from tests.conftest import REPOSITORY
from tests.distributed import forked_runs
from tests.faults.running import PYTHON, SLOW, start, steps_logged
from tests.runs import Run, check_same, command, train_forked, train_here


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("undisturbed") / "run"
    assert train_here(folder, *SLOW) == 0
    return Run(folder, 0)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
def test_a_request_to_stop_saves_and_the_same_command_goes_on(
    number: signal.Signals, undisturbed: Run, tmp_path: Path
) -> None:
    # A new process for the signal that Python itself handles otherwise.
    process = start(tmp_path / "run", *SLOW, launcher=PYTHON if number == signal.SIGINT else None)
    process.send_signal(number)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 75, output
    assert "everything is saved" in output
    assert "Traceback" not in output
    stopped = Run(tmp_path / "run", 75)
    status = stopped.json("status.json")
    assert (status["state"], status["exit_code"]) == ("stopped", 75)
    assert 0 < status["step"] < 88
    assert len(stopped.metrics("step")) == status["step"]
    check_same(train_forked(tmp_path / "run", 1, *SLOW), undisturbed)


def test_a_run_that_is_killed_twice_ends_with_the_same_weights(
    undisturbed: Run, tmp_path: Path
) -> None:
    for _ in range(2):
        process = start(tmp_path / "run", *SLOW)
        process.kill()
        process.communicate()
    again = train_forked(tmp_path / "run", 1, *SLOW)
    assert "going on after step" in again.output
    check_same(again, undisturbed)


def test_killed_on_two_processes_and_finished_on_one(undisturbed: Run, tmp_path: Path) -> None:
    process = start(tmp_path / "run", *SLOW, ranks=2)
    for child in psutil.Process(process.pid).children():
        child.kill()
    process.communicate(timeout=60)
    check_same(train_forked(tmp_path / "run", 1, *SLOW), undisturbed)


SLOW_EVALUATION = """
import os, time
from models.quicknet import QuickNet

class Slow(QuickNet):
    def forward(self, images):
        if not self.training and len(images) > 2:
            time.sleep(float(os.environ.get("BLOCK_S", 0)))
        return super().forward(images)
"""


def test_a_request_during_an_evaluation(tmp_path: Path) -> None:
    """700 samples are two blocks: it does not wait for the second."""
    plugin = tmp_path / "slow.py"
    plugin.write_text(SLOW_EVALUATION)
    more = ["--model.name", f"{plugin}:Slow", "--train.epochs", "2", "--data.validation_size"]
    more += ["700", "--checkpoint.every_steps", "100"]
    assert train_here(tmp_path / "undisturbed", *more) == 0
    words = command(tmp_path / "run", *more)[1:]
    process = forked_runs.start(tmp_path / "output", *words, BLOCK_S="1")
    while steps_logged(tmp_path / "run") < 13 and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 75, output
    stopped = Run(tmp_path / "run", 75)
    assert stopped.json("status.json")["step"] == 13
    assert stopped.metrics("epoch") == []
    assert train_here(tmp_path / "run", *more) == 0
    check_same(Run(tmp_path / "run", 0), Run(tmp_path / "undisturbed", 0))


def test_max_seconds_stops_like_a_request_and_finished_on_two_processes(
    undisturbed: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STEP_S", "0.01")
    assert train_here(tmp_path / "run", *SLOW, "--train.max_seconds", "0.5") == 75
    assert Run(tmp_path / "run", 75).json("status.json")["state"] == "stopped"
    check_same(train_forked(tmp_path / "run", 2, *SLOW), undisturbed)


def test_a_request_is_noticed_in_the_middle_of_frequent_checkpoints(tmp_path: Path) -> None:
    """646 steps an epoch, a checkpoint after each of them."""
    more = ["--train.batch_size", "2", "--train.microbatches", "2", "--checkpoint.every_steps", "1"]
    assert train_here(tmp_path / "run", *more, "--train.max_seconds", "0.5") == 75
    assert Run(tmp_path / "run", 75).json("status.json")["step"] < 500


def test_a_checkpoint_by_its_path_in_another_folder(undisturbed: Run, tmp_path: Path) -> None:
    """The run goes on from there, with the record of what led to it."""
    saved = undisturbed.folder / "checkpoints" / "step-00000080"
    assert train_here(tmp_path / "run", *SLOW, "--resume", str(saved)) == 0
    check_same(Run(tmp_path / "run", 0), undisturbed)


def test_a_run_that_begins_with_anothers_end_saves_its_own_checkpoint(
    undisturbed: Run, tmp_path: Path
) -> None:
    last = max((undisturbed.folder / "checkpoints").iterdir())
    assert train_here(tmp_path / "run", *SLOW, "--resume", str(last)) == 0
    assert [path.name for path in (tmp_path / "run" / "checkpoints").iterdir()] == [last.name]
    check_same(Run(tmp_path / "run", 0), undisturbed)


ONE_PROCESS = [
    sys.executable, "-m", "accelerate.commands.accelerate_cli", "launch",
    "--config_file", str(REPOSITORY / "launch" / "cpu.yaml"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("number", "to_all"), [(signal.SIGTERM, False), (signal.SIGUSR1, True)], ids=["launcher", "all"]
)
def test_a_launcher_that_dies_of_the_request_does_not_keep_the_run_from_saving(
    number: signal.Signals, to_all: bool, undisturbed: Run, tmp_path: Path
) -> None:
    process = start(tmp_path / "run", *SLOW, launcher=ONE_PROCESS)
    ranks = psutil.Process(process.pid).children()
    (os.killpg if to_all else os.kill)(process.pid, number)
    process.communicate(timeout=30)
    assert psutil.wait_procs(ranks, timeout=10)[1] == []
    status = Run(tmp_path / "run", 1).json("status.json")
    assert (status["state"], status["exit_code"]) == ("stopped", 75)
    assert len(Run(tmp_path / "run", 1).metrics("step")) == status["step"]
    check_same(train_forked(tmp_path / "run", 1, *SLOW), undisturbed)


def test_the_same_command_with_a_checkpoints_path_goes_on_where_it_stood(
    undisturbed: Run, tmp_path: Path
) -> None:
    saved = undisturbed.folder / "checkpoints" / "step-00000080"
    more = [*SLOW, "--resume", str(saved), "--train.max_seconds"]
    assert train_here(tmp_path / "run", *more, "0.01") == 75
    first = Run(tmp_path / "run", 75).json("status.json")["step"]
    assert train_here(tmp_path / "run", *more, "0.01") == 75
    assert Run(tmp_path / "run", 75).json("status.json")["step"] > first > 80
    assert train_here(tmp_path / "run", *more, "60") == 0
    check_same(Run(tmp_path / "run", 0), undisturbed)


def test_going_back_to_an_older_checkpoint_in_the_same_folder(
    undisturbed: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run goes on even if it is stopped again before it passes the newer checkpoint."""
    keep = ["--checkpoint.keep", "100", "--train.max_seconds"]
    with monkeypatch.context() as patch:
        patch.setenv("STEP_S", "0.01")
        assert train_here(tmp_path / "run", *SLOW, *keep, "1.5") == 75
    oldest, *newer = sorted((tmp_path / "run" / "checkpoints").iterdir())
    assert newer
    assert train_here(tmp_path / "run", *SLOW, *keep, "0.01", "--resume", str(oldest)) == 75
    assert train_here(tmp_path / "run", *SLOW) == 0
    check_same(Run(tmp_path / "run", 0), undisturbed)


def test_two_runs_do_not_share_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    process = start(tmp_path / "run", *SLOW)
    process.send_signal(signal.SIGSTOP)  # otherwise it may end before the second has started
    assert train_here(tmp_path / "run", *SLOW) == 2
    assert "in use by another run" in capsys.readouterr().err
    process.kill()
    process.communicate()
