"""Python programs in a process of their own, on the CPU."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import turns

REPOSITORY = Path(__file__).resolve().parent.parent


def run(file: str, words: Sequence[str]) -> tuple[str, float]:
    """What it prints, and its seconds; where it fails, the benchmark ends with its message.

    Args:
        file: as seen from the repository.
        words: its arguments; paths in them are seen from where the benchmark was started.
    """
    start_s = time.perf_counter()
    finished = subprocess.run(
        [sys.executable, str(REPOSITORY / file), *words],
        env=os.environ | turns.ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
    )
    if finished.returncode != 0:
        sys.exit(f"{shlex.join([file, *words])}: {finished.stderr}")
    return finished.stdout, time.perf_counter() - start_s
