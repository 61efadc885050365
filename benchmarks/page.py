"""Pages of results: what each of them says first, and how ratios are given."""

from __future__ import annotations

import os
import platform
import statistics
from collections.abc import Sequence
from pathlib import Path

import torch

from trainer import environment

RESULTS = Path(__file__).parent / "results"


def spread(ratios: Sequence[float]) -> str:
    """The median and the quartiles of ratios measured in pairs; a single one as it is."""
    if len(ratios) == 1:
        return f"{ratios[0]:.3f}"
    lower, median, upper = statistics.quantiles(ratios, n=4)
    return f"{median:.3f} ({lower:.3f} to {upper:.3f})"


def machine() -> str:
    """Where it was measured."""
    found = environment.describe(torch.device("cpu"))
    return (
        f"{found['processor'].split('/')[0]}, {os.cpu_count()} cores, {found['cpu capability']}, "
        f"Python {platform.python_version()}, torch {found['torch']}"
    )


def write(name: str, title: str, commands: Sequence[str], lines: Sequence[str]) -> None:
    """Put the page `name`.md among the results, and show it."""
    head = [f"# {title}", "", *(f"    {command}" for command in commands), ""]
    page = "\n".join([*head, f"On {machine()}.", "", *lines]) + "\n"
    (RESULTS / f"{name}.md").write_text(page)
    print(page)
