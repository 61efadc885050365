"""Write CSV whose lines end in a line feed alone, as those of other programs here do."""

from __future__ import annotations

import csv
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from _csv import Writer

_END = "\r\n"
"""The csv module quotes the characters of its ends of lines: a name may have either."""


class _Lines:
    def __init__(self, output: TextIO) -> None:
        self.output = output

    def write(self, row: str) -> Any:
        return self.output.write(row.removesuffix(_END) + "\n")


def writer(output: TextIO) -> Writer:
    """Return what writes rows to `output`, each of which ends in a line feed."""
    return csv.writer(_Lines(output), lineterminator=_END)
