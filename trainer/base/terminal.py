"""Print to the console: lines of plain text, aligned tables, a progress bar on a terminal.

Lines go to standard output and the bar to standard error, so that a log file has lines only.
The caller decides which process prints.
"""

from __future__ import annotations

import json
import locale
import sys
import unicodedata
from collections.abc import Collection, Iterable, Sequence
from typing import Any


def print_facts(facts: dict[str, str]) -> None:
    """Print a block of aligned lines, one for each name and its text, and an empty line."""
    width = max(map(len, facts), default=0)
    for name, text in facts.items():
        print_line(f"{name:<{width}}  {text}")
    print_line("")


def progress_bar(what: str, total: int, *, enabled: bool = True, **options: Any) -> Any:
    """Make tqdm's progress bar, a context manager; it stays hidden if there is no terminal."""
    from tqdm import tqdm

    return tqdm(
        total=total,
        desc=what,
        file=sys.stderr,
        leave=False,
        dynamic_ncols=True,
        # Under a C locale Python writes UTF-8, and the terminal cannot show it.
        ascii=locale.getencoding().lower().replace("-", "") != "utf8",
        disable=not (enabled and sys.stderr.isatty()),
        **options,
    )


def percent(share: float | None) -> str:
    """Write a share between 0 and 1 as a percentage, None as a dash."""
    return "-" if share is None else f"{100 * share:.2f} %"


def format_table(rows: Sequence[tuple[str, ...]], left: Collection[int] = (0,)) -> list[str]:
    """Align rows of cells into lines.

    Args:
        rows: of equally many cells; the first may be the head.
        left: the columns, counted from 0, that are flush left; the others are flush right.
    """
    widths = [max(map(_columns, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        gaps = [width - _columns(cell) for cell, width in zip(row, widths, strict=True)]
        cells = [
            f"{cell}{' ' * gap}" if number in left else f"{' ' * gap}{cell}"
            for number, (cell, gap) in enumerate(zip(row, gaps, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return lines


def _columns(text: str) -> int:
    """Return how wide a terminal shows text: a Chinese character is two letters wide."""
    if text.isascii():
        return len(text)
    marks = ("Mn", "Me", "Cf")  # which stand on the letter before them, or are not seen
    return sum(
        0 if unicodedata.category(one) in marks else 1 + (unicodedata.east_asian_width(one) in "WF")
        for one in text
    )


def printable(text: str) -> str:
    """Return text with escapes for what does not print, as the names of files may have it."""
    if text.isprintable():
        return text
    return "".join(
        one if one.isprintable() else one.encode("unicode_escape").decode() for one in text
    )


def print_report(report: Any, lines: Iterable[str], *, as_json: bool) -> None:
    """Print what a command has found: `report` as JSON for programs, or `lines` for people."""
    print(json.dumps(report, indent=2) if as_json else "\n".join(lines), flush=True)


def print_line(text: str) -> None:
    """Print a line, with a question mark for what standard output cannot encode."""
    encoding = sys.stdout.encoding or "ascii"
    print(text.encode(encoding, "replace").decode(encoding), flush=True)
