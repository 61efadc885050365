"""Compute digests in processes of their own, also on processors that qemu emulates."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from importlib import metadata
from pathlib import Path

from tests.conftest import REPOSITORY
from tests.distributed.launch import environment

FILE = Path(__file__).with_name("digests.json")

PACKAGES = ("torch", "numpy", "pillow")
"""of whose versions the digests are"""

EMULATOR = "qemu-x86_64-static"
BY_INTEL, BY_AMD = "Haswell", "EPYC"
"""models of qemu's, without AVX-512"""


def versions() -> dict[str, str]:
    """Return the installed versions."""
    return {name: metadata.version(name) for name in PACKAGES}


def commit() -> str:
    """Return the short hash of the code; of changed code it says so."""
    words = ["git", "describe", "--always", "--dirty", "--exclude=*"]
    found = subprocess.run(words, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    return found.stdout.strip()


def has_emulator() -> bool:
    """Return whether qemu's emulation of programs is installed."""
    return shutil.which(EMULATOR) is not None


def of_the_other_maker() -> str:
    """Return the model of a processor that is not by the maker of this machine's."""
    here = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    return BY_INTEL if "AuthenticAMD" in here else BY_AMD


def stream(
    names: Sequence[str], processor: str | None = None, **env: str
) -> Iterator[tuple[str, str]]:
    """Compute the digests of cases, and yield each name and digest as it comes.

    Args:
        processor: a model of qemu's; None: this machine's.
    """
    emulator = [EMULATOR, "-cpu", processor] if processor else []
    with (
        tempfile.TemporaryFile("w+") as errors,
        subprocess.Popen(
            [*emulator, sys.executable, "-m", "tests.golden.compute", *names],
            cwd=REPOSITORY,
            env=environment(**env),
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        ) as process,
    ):
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith('["'):
                name, digest = json.loads(line)
                yield name, digest
        if process.wait():
            errors.seek(0)
            raise RuntimeError(f"exit code {process.returncode}: {errors.read()[-3000:]}")


def compute(names: Sequence[str], processor: str | None = None, **env: str) -> dict[str, str]:
    """Return the digests of cases; arguments as of `stream`."""
    return dict(stream(names, processor, **env))
