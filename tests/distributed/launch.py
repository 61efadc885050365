"""Starting real processes under the launchers that users have."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.conftest import REPOSITORY

WORKER = Path(__file__).with_name("worker.py")


def launcher(processes: int) -> list[str]:
    """The words that start a script in so many CPU processes; a free port is chosen."""
    if processes == 1:
        return [sys.executable]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    return [*torchrun, "--nproc_per_node", str(processes)]


def environment(**more: str) -> dict[str, str]:
    """The environment of a started process: our packages, the CPU, one thread."""
    return os.environ | {
        "PYTHONPATH": str(REPOSITORY),
        "ACCELERATE_USE_CPU": "true",
        "OMP_NUM_THREADS": "1",
        **more,
    }


def own_words(errors: str) -> str:
    """What the processes have said, before torchrun's table of failures says it again."""
    return errors.partition("ChildFailedError")[0]


def run_worker(processes: int, output: Path, **task: Any) -> Any:
    """Do a task of worker.py in so many processes; its outcome."""
    finished = subprocess.run(
        [*launcher(processes), str(WORKER), json.dumps(task), str(output)],
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    return json.loads(output.read_text())
