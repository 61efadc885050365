"""What the names of files and folders of pictures mean."""

from __future__ import annotations

import re
import unicodedata
from pathlib import Path

from trainer.data.pictures.decoding import SUFFIXES

PARTS = ("train", "validation", "test")

# What disks, NAS systems and archives put into folders by themselves, in lower case.
_SYSTEM = frozenset(
    {
        "__macosx",
        "icon\r",  # macOS
        "thumbs.db",
        "ehthumbs.db",
        "desktop.ini",
        "system volume information",
        "$recycle.bin",
        "recycler",
        "found.000",  # Windows
        "lost+found",
        "@eadir",
        "@tmp",
        "#recycle",
        "#snapshot",  # Synology
        "@recycle",
        "@recently-snapshot",  # QNAP
        "~snapshot",  # NetApp
    }
)

_MEANT = {
    "train": "train|training|trn",
    "validation": "validation|validate|val|valid|dev|development",
    "test": "test|tests|testing|tst",
    "validation or test": "eval|evaluation|evaluate|holdout|heldout",
}
"""what a folder beside train/ must be called, by words in its name"""
_ADDED = r"(set|data|dataset|split|part|images|imgs|pictures|pics|photos)?\d*"


def is_ignored(name: str) -> bool:
    """Whether a file or a folder is hidden, or a system's own."""
    return name.startswith(".") or name.casefold() in _SYSTEM


def is_picture(path: Path) -> bool:
    """Whether a file is a picture by its name."""
    return path.suffix.lower() in SUFFIXES


def guess_part(name: str) -> str | None:
    """What a folder must be called whose name says that it is a part; None where it says nothing.

    `Val`, `TEST`, `hold-out`, `val2017` and `test_images` say so.
    """
    plain = re.sub(r"[\W_]", "", name.casefold())
    for meant, words in _MEANT.items():
        if re.fullmatch(f"({words}){_ADDED}", plain):
            return meant
    return None


def normalize_class_name(folder: str) -> str:
    """The class that a folder holds: its name in Unicode's form NFC, without blanks at its ends.

    macOS and some archives write é as two characters (NFD), and both look alike.
    """
    return unicodedata.normalize("NFC", folder).strip()


def shown(name: str) -> str:
    """A name for a message, beside its code points where letters may look alike."""
    plain = name.isascii() and name.isprintable() and name == " ".join(name.split())
    return name if plain else f"{name} ({name!a})"
