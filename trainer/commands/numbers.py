"""Numbers among the words of a command."""

from __future__ import annotations

import argparse


def whole_number(text: str) -> int:
    """A number from 1, as argparse takes a type.

    Raises:
        ArgumentTypeError: it is none.
    """
    if not (text.isascii() and text.isdecimal() and int(text) > 0):
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 1")
    return int(text)
