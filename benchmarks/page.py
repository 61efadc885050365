"""Write pages of results, and keep the figures that some of them are written from."""

from __future__ import annotations

import argparse
import json
import os
import platform
import shlex
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from apart import REPOSITORY

from trainer.base import files, numerics

RESULTS = REPOSITORY / "benchmarks" / "results"

Figures = dict[str, dict[str, Any]]
"""of each command or case so far, as JSON"""


def parser(text: str | None) -> argparse.ArgumentParser:
    """Return a parser whose help is a benchmark's docstring."""
    return argparse.ArgumentParser(
        description=text, formatter_class=argparse.RawDescriptionHelpFormatter
    )


def add_output(parser: argparse.ArgumentParser, name: str) -> None:
    """Add --output, a file among the results unless it is given."""
    path = RESULTS / name
    what = "the page" if path.suffix == ".md" else "the figures; the page is written next to them"
    parser.add_argument("--output", type=Path, default=path, metavar="FILE", help=what)


def machine() -> str:
    """Describe the machine, the versions and the commit."""
    found = numerics.describe(torch.device("cpu"), None)
    return (
        f"{found['processor'].split('/')[0]}, {os.cpu_count()} cores, {found['cpu capability']}, "
        f"Python {platform.python_version()}, torch {found['torch']}, commit {commit()}"
    )


def commit() -> str:
    """Return the short hash of the code, and whether anything but results differs from it."""
    try:
        changes = _git("status", "--porcelain", "--", ".", ":(exclude)benchmarks/results")
        return _git("rev-parse", "--short", "HEAD") + (" and changes" if changes else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _git(*words: str) -> str:
    found = subprocess.run(
        ["git", *words], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    return found.stdout.strip()


def command_of(
    start: str, arguments: argparse.Namespace, usual: argparse.Namespace, *known: str
) -> str:
    """Return the command that repeats a measurement on any machine.

    Args:
        start: the file, and what always follows it.
        arguments: as they were given; those with their usual values are left out.
        usual: the usual values.
        known: arguments that `start` has already.
    """
    words = [f"python benchmarks/{start}"]
    for key, value in vars(arguments).items():
        if key not in ("output", "root", *known) and value != getattr(usual, key, None):
            flag = [] if value is True else [value]
            values = value if isinstance(value, list) else flag
            words.append(shlex.join([f"--{key}", *map(str, values)]))
    return " ".join(words)


def measure(command: str, function: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Return the figures of a function, with the command, the minutes and the machine."""
    start_s = time.monotonic()
    figures = function()
    minutes = (time.monotonic() - start_s) / 60
    return {**figures, "command": command, "minutes": minutes, "machine": machine()}


def section(title: str, measured: Mapping[str, Any], lines: Sequence[str]) -> list[str]:
    """Return a section of a page, from what `measure` has returned and the lines about it."""
    where = f"{measured['minutes']:.1f} minutes on {measured['machine']}."
    return [f"## {title}", "", f"    {measured['command']}", "", where, "", *lines]


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Return a table as lines of Markdown."""
    return [f"| {' | '.join(cells)} |" for cells in (heads, ["---"] * len(heads), *rows)]


def write(path: Path, title: str, command: str, lines: Sequence[str]) -> None:
    """Write the page of a benchmark that keeps no figures, and print it."""
    page = [f"# {title}", "", f"    {command}", "", f"On {machine()}.", "", *lines]
    _write(page, path)
    print("\n".join(page))


def read_figures(path: Path) -> Figures:
    """Read the figures of all commands or cases so far."""
    found: Figures = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return found


def write_figures(path: Path, figures: Figures, lines: Sequence[str]) -> None:
    """Write the figures and the page next to them, and print the page."""
    write_quietly(path, figures, lines)
    print("\n".join(lines))


def write_quietly(path: Path, figures: Figures, lines: Sequence[str]) -> None:
    """Write the figures and the page next to them."""
    files.write_text(path, json.dumps(figures, indent=2) + "\n")
    _write(lines, path.with_suffix(".md"))


def _write(lines: Sequence[str], path: Path) -> None:
    files.write_text(path, "\n".join(lines).rstrip() + "\n")
