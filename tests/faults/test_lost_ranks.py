"""A rank dies or hangs: the others end, and say which one it was."""

from __future__ import annotations

import platform
import signal
import subprocess
import time
from pathlib import Path

import psutil
import pytest

from tests.distributed.launch import environment, launcher
from tests.faults.test_interruption import steps_logged
from tests.runs import Run, command, train_apart

ENDLESS = ["--train.epochs", "10000"]


def start(folder: Path, *more: str) -> tuple[subprocess.Popen[str], list[psutil.Process]]:
    """A run of two processes in the middle of its training: the launcher, and its ranks."""
    process = subprocess.Popen(
        command(folder, *ENDLESS, *more, launcher=launcher(2)),
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    while steps_logged(folder) < 30:
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.01)
    ranks = psutil.Process(process.pid).children()
    return process, sorted(ranks, key=lambda rank: int(rank.environ()["RANK"]))


@pytest.mark.parametrize("victim", [0, 1])
def test_a_rank_that_is_killed_is_named(victim: int, tmp_path: Path) -> None:
    launched, ranks = start(tmp_path / "run")
    ranks[victim].kill()
    output, _ = launched.communicate(timeout=60)
    assert launched.returncode == 1
    assert (
        f"rank {1 - victim} on {platform.node()}: rank {victim} on {platform.node()} died" in output
    )
    assert "Traceback" not in output.split("torch/distributed")[0]
    assert psutil.wait_procs(ranks, timeout=1)[1] == []
    if victim == 1:
        assert Run(tmp_path / "run", 1).json("status.json")["state"] == "failed"


def test_a_rank_that_hangs_is_named_within_the_time_that_is_configured(tmp_path: Path) -> None:
    launched, ranks = start(tmp_path / "run", "--timeout_seconds", "4")
    ranks[1].send_signal(signal.SIGSTOP)
    stopped_s = time.monotonic()
    ranks[0].wait(timeout=60)
    assert time.monotonic() - stopped_s < 4 + 10 + 5, "the time, and that for others to answer"
    ranks[1].kill()  # else the launcher would give it half a minute
    output, _ = launched.communicate(timeout=60)
    assert f"rank 1 on {platform.node()} died, or has not answered in time" in output
    assert psutil.wait_procs(ranks, timeout=1)[1] == []


def test_a_rank_whose_own_code_fails_is_named_by_the_others(tmp_path: Path) -> None:
    plugin = tmp_path / "broken.py"
    plugin.write_text("""
import os
from models.quicknet import QuickNet

class Broken(QuickNet):
    def forward(self, images):
        if len(images) > 2 and self.training and os.environ["RANK"] == "1":
            raise FileNotFoundError("calibration.bin")
        return super().forward(images)
""")
    run = train_apart(tmp_path / "run", "--model.name", f"{plugin}:Broken", launcher=launcher(2))
    assert run.exit_code == 1
    expected = f"rank 1 on {platform.node()} failed first (FileNotFoundError: calibration.bin)"
    assert expected in run.errors
    own = run.errors.split("torch/distributed/elastic")[0]
    assert "FileNotFoundError: calibration.bin" in own.partition("Traceback")[2], "that of rank 1"
    assert "rank 0 on" not in own.replace(f"rank 0 on {platform.node()}: {expected}", "")
