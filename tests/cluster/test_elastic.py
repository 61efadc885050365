"""torchrun replaces a worker that dies: the run goes on from its checkpoint, to the same bits."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import psutil

from tests.distributed.launch import environment, launcher
from tests.faults.test_interruption import LONG, steps_logged
from tests.runs import Run, check_same, command, train_here

# Else torch 2.13 gives the new workers the store of the old ones, with addresses where nobody is.
OWN_STORE = {"TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}
ELASTIC = [*launcher(2), "--max-restarts", "2"]


def test_a_worker_that_is_killed_is_replaced(tmp_path: Path) -> None:
    assert train_here(tmp_path / "undisturbed", *LONG) == 0
    folder = tmp_path / "run"
    process = subprocess.Popen(
        command(folder, *LONG, launcher=ELASTIC),
        env=environment(**OWN_STORE),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    while steps_logged(folder) < 30:
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.01)
    ranks = psutil.Process(process.pid).children()
    next(rank for rank in ranks if rank.environ()["RANK"] == "1").kill()
    output, _ = process.communicate(timeout=120)
    assert "going on after step" in output
    check_same(Run(folder, process.returncode, output, output), Run(tmp_path / "undisturbed", 0))
