"""The tests that need a GPU, in a process of pytest."""

from __future__ import annotations

import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections import Counter
from pathlib import Path

from apart import REPOSITORY

from gpu_cases import Save, Task

MESSAGE_CHARACTERS = 300
"""of a failure, that are kept"""


def run(task: Task, save: Save) -> None:
    """Run them; keep how each ended."""
    report = Path(task.work_dir) / "tests.xml"
    words = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/gpu"]
    words += ["--device", task.device, f"--junitxml={report}", *task.options.get("words", [])]
    finished = subprocess.run(words, cwd=REPOSITORY, check=False)
    save({"exit_code": finished.returncode, **read_report(report)})


def read_report(report: Path) -> dict[str, object]:
    """Return how many tests passed, failed and were skipped, and why, from JUnit's XML."""
    counts = Counter({"passed": 0, "failed": 0, "skipped": 0})
    failures: dict[str, str] = {}
    skips: Counter[str] = Counter()
    for test in ElementTree.parse(report).iter("testcase"):
        outcome, reason = "passed", ""
        for child in test:
            if child.tag in ("failure", "error", "skipped"):
                outcome = "skipped" if child.tag == "skipped" else "failed"
                reason = (child.get("message") or child.text or "")[:MESSAGE_CHARACTERS]
        counts[outcome] += 1
        if outcome == "failed":
            failures[f"{test.get('name')}"] = reason
        elif outcome == "skipped":
            skips[reason] += 1
    return {**counts, "failures": failures, "skips": skips}
