"""Python programs in processes of their own, on the CPU; a whole training is one of them."""

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
    """Variables of a process on the CPU.

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


def python(file: str, *words: str, processes: int = 1) -> list[str]:
    """The command that runs a file of the repository, under torchrun where there are several."""
    launcher = [sys.executable]
    if processes > 1:
        launcher += ["-m", "torch.distributed.run", "--standalone"]
        launcher += ["--nproc_per_node", str(processes)]
    return [*launcher, str(REPOSITORY / file), *words]


def training(
    recipe: str | Path, output: Path, *more: str, root: str | None = None, processes: int = 1
) -> list[str]:
    """The command of a training.

    Args:
        recipe: the name of one in configs/, or a file.
        output: the run's folder.
        more: words that follow.
        root: data.root.
    """
    config = recipe if isinstance(recipe, Path) else REPOSITORY / "configs" / f"{recipe}.yaml"
    words = ["--config", str(config), "--output_dir", str(output), "--tracking.wandb", "disabled"]
    words += ["--data.root", root] if root else []
    return python("train.py", *words, *more, processes=processes)


def run(command: Sequence[str], exit_code: int = 0) -> tuple[str, float]:
    """What it prints, and its seconds; where it fails, the benchmark ends with its message."""
    start_s = time.perf_counter()
    finished = subprocess.run(
        command, env=environment(), capture_output=True, text=True, check=False
    )
    elapsed_s = time.perf_counter() - start_s
    if finished.returncode != exit_code:
        sys.exit(f"{shlex.join(command)}: {finished.stderr}")
    return finished.stdout, elapsed_s


def results(run: Path) -> dict[str, Any]:
    """What results.json of a finished run holds."""
    found: dict[str, Any] = json.loads((run / "results.json").read_text(encoding="utf-8"))
    return found


def measured(file: str, case: dict[str, Any], processes: int) -> dict[str, Any]:
    """What `FILE CASE OUTPUT` writes into OUTPUT on so many processes; both are JSON objects."""
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "measured.json"
        run(python(file, json.dumps(case), str(output), processes=processes))
        found: dict[str, Any] = json.loads(output.read_text())
        return found
