"""Tell what the names of files and folders of pictures mean."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

from trainer.data.pictures.decoding import SUFFIXES

PARTS = ("train", "validation", "test")

MOST_NAMED = 10
"""names in a message"""

# What disks, NAS systems and archives put into folders, in lower case.
_SYSTEM = {
    *("__macosx", "icon\r"),  # macOS
    *("thumbs.db", "ehthumbs.db", "desktop.ini", "system volume information"),  # Windows
    *("$recycle.bin", "recycler", "found.000"),  # Windows
    "lost+found",
    *("@eadir", "@tmp", "#recycle", "#snapshot"),  # Synology
    *("@recycle", "@recently-snapshot"),  # QNAP
    "~snapshot",  # NetApp
}

_OTHER_NAMES = {
    "train": "train|training|trn",
    "validation": "validation|validate|val|valid|dev|development",
    "test": "test|tests|testing|tst",
    "validation or test": "eval|evaluation|evaluate|holdout|heldout",
}
"""words in the name of a folder next to train/, by what the folder should be called"""
_ADDED = r"(set|data|dataset|split|part|images|imgs|pictures|pics|photos)?\d*"


def is_ignored(name: str) -> bool:
    """Return whether a file or a folder is hidden, or is one that systems make."""
    return name.startswith(".") or name.casefold() in _SYSTEM


def is_picture(name: str) -> bool:
    """Return whether a file is a picture by its name."""
    return name.endswith(SUFFIXES) or name.lower().endswith(SUFFIXES)


def guess_part(name: str) -> str | None:
    """Return what a folder should be called whose name means a part, otherwise None.

    `Val`, `TEST`, `hold-out`, `val2017` and `test_images` mean one.
    """
    plain = re.sub(r"[\W_]", "", name.casefold())
    for part, words in _OTHER_NAMES.items():
        if re.fullmatch(f"({words}){_ADDED}", plain):
            return part
    return None


def normalize_class_name(name: str) -> str:
    """Return the name of a class in Unicode's form NFC, without spaces at its ends.

    macOS and some archives write é as two characters (NFD), and both look alike.
    """
    return unicodedata.normalize("NFC", name).strip()


def describe(name: str) -> str:
    """Return a name for a message, with its code points if letters may look alike."""
    plain = name.isascii() and name.isprintable() and name == " ".join(name.split())
    return name if plain else f"{name} ({name!a})"


def join_some(names: Sequence[str], separator: str = ", ") -> str:
    """Return the first names for a message, and how many more there are."""
    more = [f"and {len(names) - MOST_NAMED:,} more"] * (len(names) > MOST_NAMED)
    return separator.join([*names[:MOST_NAMED], *more])
