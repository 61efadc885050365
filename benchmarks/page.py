"""Pages of results: what each of them says first, and the figures that some are written from."""

from __future__ import annotations

import argparse
import json
import os
import platform
import shlex
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from apart import REPOSITORY

from trainer.base import files, numerics

RESULTS = REPOSITORY / "benchmarks" / "results"

Figures = dict[str, dict[str, Any]]
"""of each command or case so far, as JSON"""


def parser(text: str | None) -> argparse.ArgumentParser:
    """A command line whose help is a benchmark's own text."""
    return argparse.ArgumentParser(
        description=text, formatter_class=argparse.RawDescriptionHelpFormatter
    )


def add_output(parser: argparse.ArgumentParser, name: str) -> None:
    """Let the command line say where to write, elsewhere than among the results."""
    path = RESULTS / name
    what = "the page" if path.suffix == ".md" else "the figures, with the page beside them"
    parser.add_argument("--output", type=Path, default=path, metavar="FILE", help=what)


def machine() -> str:
    """Where it was measured, and what."""
    found = numerics.describe(torch.device("cpu"), None)
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
    found = subprocess.run(
        ["git", *words], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    return found.stdout.strip()


def command_of(
    start: str, arguments: argparse.Namespace, usual: argparse.Namespace, *known: str
) -> str:
    """What repeats a measurement on any machine.

    Args:
        start: the file, and what always follows it.
        arguments: as they were given; those that are as usual are left out.
        usual: what they are otherwise.
        known: arguments that `start` has already.
    """
    words = [f"python benchmarks/{start}"]
    for key, value in vars(arguments).items():
        if key not in ("output", "root", *known) and value != getattr(usual, key, None):
            values = value if isinstance(value, list) else [value]
            words.append(shlex.join([f"--{key}", *map(str, values)]))
    return " ".join(words)


def entry(title: str, found: Mapping[str, Any], lines: Sequence[str]) -> list[str]:
    """A command's section of a page.

    Args:
        found: its `command`, `minutes` and `machine`.
        lines: what the section says.
    """
    measured = f"{found['minutes']:.1f} minutes on {found['machine']}."
    return [f"## {title}", "", f"    {found['command']}", "", measured, "", *lines]


def write(path: Path, title: str, command: str, lines: Sequence[str]) -> None:
    """Write the page of a benchmark that keeps no figures, and show it."""
    _write([f"# {title}", "", f"    {command}", "", f"On {machine()}.", "", *lines], path)


def read_figures(path: Path) -> Figures:
    """The figures of all commands or cases so far."""
    found: Figures = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return found


def write_figures(path: Path, figures: Figures, lines: Sequence[str]) -> None:
    """Write the figures and the page beside them, and show it."""
    files.write_text(path, json.dumps(figures, indent=2) + "\n")
    _write(lines, path.with_suffix(".md"))


def _write(lines: Sequence[str], path: Path) -> None:
    page = "\n".join(lines).rstrip() + "\n"
    files.write_text(path, page)
    print(page)
