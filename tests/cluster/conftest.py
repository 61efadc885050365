"""Start the cluster that the tests of jobs share; they are one file, so that one worker does it."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.slurm import Slurm, reason_to_skip


@pytest.fixture(scope="session")
def slurm() -> Iterator[Slurm]:
    """Start a Slurm of two nodes once; skip where that is not possible."""
    reason = reason_to_skip()
    if reason:
        pytest.skip(f"no Slurm here: {reason}")
    # Not a folder of pytest's: their paths are long, and others may not enter them.
    with tempfile.TemporaryDirectory(prefix="slurm-") as folder, Slurm(Path(folder)) as cluster:
        yield cluster
