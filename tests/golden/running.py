"""Compute digests in processes of their own, also on processors that qemu emulates."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

from tests.conftest import REPOSITORY
from tests.distributed.launch import environment

FILE = Path(__file__).with_name("digests.json")

PACKAGES = ("torch", "numpy", "pillow")
"""of whose versions the digests are"""

EMULATOR = "qemu-x86_64-static"
PROCESSORS = ("Haswell", "EPYC")
"""models of qemu's"""


def versions() -> dict[str, str]:
    """Return the installed versions."""
    return {name: metadata.version(name) for name in PACKAGES}


def has_emulator() -> bool:
    """Return whether qemu's emulation of programs is installed."""
    return shutil.which(EMULATOR) is not None


def compute(names: Sequence[str], processor: str | None = None, **env: str) -> dict[str, str]:
    """Return the digests of cases.

    Args:
        processor: a model of qemu's; None: this machine's.
    """
    emulator = [EMULATOR, "-cpu", processor] if processor else []
    done = subprocess.run(
        [*emulator, sys.executable, "-m", "tests.golden.compute", *names],
        cwd=REPOSITORY,
        env=environment(**env),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"exit code {done.returncode}: {done.stderr[-3000:]}")
    return dict(json.loads(line) for line in done.stdout.splitlines() if line.startswith('["'))
