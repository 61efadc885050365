"""Run Python programs in new processes on the CPU; a whole training is one of them."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parent.parent


def environment(*search: Path) -> dict[str, str]:
    """Return the variables of a process on the CPU.

    Args:
        search: folders where Python looks for modules, after the repository.
    """
    more = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    return os.environ | {
        "ACCELERATE_USE_CPU": "true",
        "CUDA_VISIBLE_DEVICES": "",
        "PYTHONPATH": os.pathsep.join([*map(str, (REPOSITORY, *search)), *filter(None, more)]),
        "PYTHONUNBUFFERED": "1",
    }


def python_command(file: str, *words: str, processes: int = 1) -> list[str]:
    """Return the command that runs a file of the repository, by torchrun on several processes."""
    command = [sys.executable, str(REPOSITORY / file), *words]
    return by_torchrun(command, processes) if processes > 1 else command


def by_torchrun(command: Sequence[str], processes: int) -> list[str]:
    """Return the command that runs a Python program as this many processes."""
    options = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
    return [command[0], *options, *command[1:]]


def train_command(
    recipe: str | Path, output: Path, *more: str, root: str | None = None, processes: int | None = 1
) -> list[str]:
    """Return the command of a training.

    Args:
        recipe: the name of one in configs/, or a file.
        output: the run's folder.
        more: words that follow.
        root: data.root.
        processes: how many it starts; None: as many as without a word about it.
    """
    config = recipe if isinstance(recipe, Path) else REPOSITORY / "configs" / f"{recipe}.yaml"
    words = ["--config", str(config), "--output_dir", str(output), "--tracking.wandb", "disabled"]
    words += ["--data.root", root] if root else []
    words += ["--processes", str(processes)] if processes else []
    return python_command("train.py", *words, *more)


def run(
    command: Sequence[str],
    exit_code: int = 0,
    *,
    search: Sequence[Path] = (),
    limit_s: float | None = None,
) -> tuple[str, float]:
    """Run a command; return what it prints, and its seconds.

    Args:
        search: where it looks for modules, too.
        limit_s: after which it is killed.

    Raises:
        SystemExit: it ended with another exit code; has what it wrote as errors. Or it was killed.
    """
    start_s = time.perf_counter()
    try:
        finished = subprocess.run(
            command,
            env=environment(*search),
            capture_output=True,
            text=True,
            check=False,
            timeout=limit_s,
        )
    except subprocess.TimeoutExpired:
        sys.exit(f"{shlex.join(command)}: killed after {limit_s:.0f} seconds")
    elapsed_s = time.perf_counter() - start_s
    if finished.returncode != exit_code:
        sys.exit(f"{shlex.join(command)}: {finished.stderr}")
    return finished.stdout, elapsed_s


def read_results(run: Path) -> dict[str, Any]:
    """Read results.json of a finished run."""
    found: dict[str, Any] = json.loads((run / "results.json").read_text(encoding="utf-8"))
    return found


def measure(file: str, case: dict[str, Any], processes: int) -> dict[str, Any]:
    """Run `FILE CASE OUTPUT`; return what it wrote into OUTPUT. Both are JSON objects."""
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "measured.json"
        run(python_command(file, json.dumps(case), str(output), processes=processes))
        found: dict[str, Any] = json.loads(output.read_text())
        return found
