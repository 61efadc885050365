"""What benchmarks change of the process that tests them."""

from __future__ import annotations

import itertools
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace

import apart
import pytest
import torch
import turns

from tests.distributed import forked_runs
from tests.distributed.launch import run_forked


@pytest.fixture
def forked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Programs are forked from a process that has the slow imports behind it, and runs write no
    report; for benchmarks with native kernels.
    """
    numbers = itertools.count()

    def run(command: Sequence[str], exit_code: int = 0, **_: object) -> tuple[str, float]:
        words, processes = list(command[command.index(sys.executable) + 1 :]), 1
        if words[:2] == ["-m", "torch.distributed.run"]:
            processes, words = int(words[4]), words[5:]
        folder = tmp_path / f"program-{next(numbers)}"
        folder.mkdir()
        start_s = time.perf_counter()
        finished = run_forked(processes, folder, *words)
        assert finished.returncode == exit_code, finished.stderr
        return finished.stdout, time.perf_counter() - start_s

    monkeypatch.setattr(apart, "run", run)


@pytest.fixture
def forked_contenders(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same of the processes that train in turns."""
    forking = SimpleNamespace(**vars(subprocess) | {"Popen": forked_runs.popen})
    monkeypatch.setattr(turns, "subprocess", forking)


@pytest.fixture(autouse=True)
def same_threads() -> Iterator[None]:
    """Other tests keep their number of threads."""
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)
