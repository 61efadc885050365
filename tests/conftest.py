"""Fixtures for the whole suite."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import Phase, settings

# A test may take long on a busy machine, where many run at once.
settings.register_profile("busy", deadline=None)
settings.load_profile("busy")

# For benchmarks/mutation.py: the same examples each time, and no search for a smaller one.
settings.register_profile(
    "mutation",
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.explicit, Phase.generate],
)

REPOSITORY = Path(__file__).resolve().parent.parent

# Before torch is imported: the cores are shared by workers of pytest and by the ranks of runs, and
# threads would keep them busy with waiting for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# Runs of one process start faster; tests of several say how many.
os.environ.setdefault("LOCKSTEP_PROCESSES", "1")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder with the real data sets, next to the repository; skips where it is absent."""
    folder = REPOSITORY.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"the real data sets are not at {folder.name} next to the repository")
    return folder


@pytest.fixture(scope="session", autouse=True)
def write_report() -> Iterator[Callable[..., None]]:
    """What makes a run's report, which runs in this process leave out.

    The pictures take longer than a test's training; see `report`.
    """
    from trainer.run import final_report

    original = final_report.write_report
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(final_report, "write_report", lambda *_: None)
        yield original


@pytest.fixture
def report(write_report: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests that look at the report of a run in this process."""
    monkeypatch.setattr("trainer.run.final_report.write_report", write_report)
