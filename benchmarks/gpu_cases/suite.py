"""The tests that need a GPU, by pytest in this process."""

from __future__ import annotations

import os
import sys
from collections import Counter
from typing import Any

import pytest
from apart import REPOSITORY

from gpu_cases import Save, Task

MESSAGE_CHARACTERS = 300
"""of a failure, that are kept"""


def run(task: Task, save: Save) -> None:
    """Run them; keep how each ended as soon as it has, in case that a later one hangs."""
    os.chdir(REPOSITORY)
    os.environ.pop("PYTEST_ADDOPTS", None)  # of a session of tests that runs this
    words = ["-v", "-p", "no:cacheprovider", "--continue-on-collection-errors", "tests/gpu"]
    words += ["--device", task.device, *task.options.get("words", [])]
    code = pytest.main(words, plugins=[Outcomes(save)])
    save({"exit_code": int(code)})
    if code not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
        sys.exit(int(code))


class Outcomes:
    """A plug-in of pytest that counts the tests that passed, failed and were skipped, and why."""

    def __init__(self, save: Save) -> None:
        self.save = save
        self.ended: dict[str, tuple[str, str]] = {}
        """of each test its outcome and, unless it passed, the reason"""

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Note a file whose tests cannot be found."""
        if report.failed:
            self.ended[report.nodeid] = ("failed", _reason(report))

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note how a test ended, or what comes before and after it."""
        if not report.passed:
            self.ended[report.nodeid] = (report.outcome, _reason(report))
        elif report.when == "call":
            self.ended[report.nodeid] = ("passed", "")
        if report.when == "teardown":
            self.save(self.figures())

    def pytest_sessionfinish(self) -> None:
        """Save once more, as there may be nothing but files that failed."""
        self.save(self.figures())

    def figures(self) -> dict[str, Any]:
        """Return the counts of the tests that have ended, and the reasons."""
        counts = Counter(outcome for outcome, _ in self.ended.values())
        return {
            **{outcome: counts[outcome] for outcome in ("passed", "failed", "skipped")},
            "failures": {
                name.rpartition("/")[2]: reason
                for name, (outcome, reason) in self.ended.items()
                if outcome == "failed"
            },
            "skips": Counter(reason for how, reason in self.ended.values() if how == "skipped"),
        }


def _reason(report: pytest.TestReport | pytest.CollectReport) -> str:
    if isinstance(report.longrepr, tuple):  # of a test that was skipped: file, line, reason
        return report.longrepr[2].removeprefix("Skipped: ")
    crash = getattr(report.longrepr, "reprcrash", None)
    text = crash.message if crash else report.longreprtext
    return str(text)[:MESSAGE_CHARACTERS]
