"""Print to the console: lines of plain text, aligned tables, a progress bar on a terminal.

Lines go to standard output and the bar to standard error, so that a log file holds lines only.
The caller decides which process prints.
"""

from __future__ import annotations

import locale
import sys
from collections.abc import Collection, Sequence
from typing import Any


def print_header(facts: dict[str, str]) -> None:
    """Print one block of aligned lines, a fact each: its name and its text."""
    width = max(map(len, facts), default=0)
    for name, text in facts.items():
        print_line(f"{name:<{width}}  {text}")
    print_line("")


def bar(what: str, total: int, *, shown: bool = True, **options: Any) -> Any:
    """A bar of tqdm's on standard error, a context manager; none where that is no terminal.

    Args:
        what: is going on.
        total: how many updates are the whole.
        shown: whether this process speaks.
        options: further ones of tqdm's.
    """
    from tqdm import tqdm

    return tqdm(
        total=total,
        desc=what,
        file=sys.stderr,
        leave=False,
        dynamic_ncols=True,
        # Python takes a C locale for UTF-8; the terminal does not.
        ascii=locale.getencoding().lower().replace("-", "") != "utf8",
        disable=not (shown and sys.stderr.isatty()),
        **options,
    )


def percent(share: float | None) -> str:
    """A share between 0 and 1 in per cent, a dash where there is none."""
    return "-" if share is None else f"{100 * share:.2f} %"


def table(rows: Sequence[tuple[str, ...]], left: Collection[int] = (0,)) -> list[str]:
    """Lines of columns: those with the numbers `left` (from 0) are flush left, others right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = [
            f"{cell:<{width}}" if number in left else f"{cell:>{width}}"
            for number, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return lines


def print_line(text: str) -> None:
    """A line, with a question mark for what standard output cannot encode."""
    encoding = sys.stdout.encoding or "ascii"
    print(text.encode(encoding, "replace").decode(encoding), flush=True)
