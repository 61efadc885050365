"""Pages of results: what each of them says first, and how ratios are given."""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from trainer import environment, files

RESULTS = Path(__file__).parent / "results"

Figures = dict[str, dict[str, Any]]
"""of each command or case so far, as JSON"""


def spread(ratios: Sequence[float]) -> str:
    """The median and the quartiles of ratios measured in pairs; a single one as it is."""
    if len(ratios) == 1:
        return f"{ratios[0]:.3f}"
    lower, median, upper = statistics.quantiles(ratios, n=4)
    return f"{median:.3f} ({lower:.3f} to {upper:.3f})"


def machine() -> str:
    """Where it was measured, and what."""
    found = environment.describe(torch.device("cpu"))
    return (
        f"{found['processor'].split('/')[0]}, {os.cpu_count()} cores, {found['cpu capability']}, "
        f"Python {platform.python_version()}, torch {found['torch']}, commit {commit()}"
    )


def commit() -> str:
    """The short hash of the code, and whether anything but results differs from it."""
    try:
        changes = _git("status", "--porcelain", "--", ".", ":(exclude)benchmarks/results")
        return _git("rev-parse", "--short", "HEAD") + (" and changes" if changes else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _git(*words: str) -> str:
    folder = RESULTS.parent.parent
    found = subprocess.run(["git", *words], cwd=folder, capture_output=True, text=True, check=True)
    return found.stdout.strip()


def write(name: str, title: str, commands: Sequence[str], lines: Sequence[str]) -> None:
    """Put the page `name`.md among the results, and show it."""
    head = [f"# {title}", "", *(f"    {command}" for command in commands), ""]
    page = "\n".join([*head, f"On {machine()}.", "", *lines]) + "\n"
    (RESULTS / f"{name}.md").write_text(page)
    print(page)


def read_figures(path: Path) -> Figures:
    """The figures of all commands or cases so far."""
    found: Figures = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return found


def write_figures(path: Path, figures: Figures, lines: Sequence[str]) -> None:
    """Write the figures and the page beside them, and show it."""
    files.write_text(path, json.dumps(figures, indent=2) + "\n")
    page = "\n".join(lines) + "\n"
    files.write_text(path.with_suffix(".md"), page)
    print(page)
