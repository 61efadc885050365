"""Find installed fonts that have the letters of classes' names, for what matplotlib draws."""

from __future__ import annotations

import functools
import logging
import time
import unicodedata
from collections.abc import Collection, Iterable
from dataclasses import dataclass

LIMIT_S = 2.0
"""how long new fonts are added, and how long all are looked through: there may be thousands"""

_JOINERS = frozenset("\N{ZERO WIDTH JOINER}\N{ZERO WIDTH NON-JOINER}\N{VARIATION SELECTOR-16}")
"""which need no glyph of their own"""

_BOXES = "Last Resort"
"""the name of a font that matplotlib brings: a box for every letter"""

log = logging.getLogger("lockstep")


@dataclass(frozen=True)
class Fonts:
    """Fonts that draw some names, and what they lack.

    Args:
        families: their names, matplotlib's own font first, for `fontfamily` of its texts.
        lacking: letters that none of them has.
    """

    families: tuple[str, ...]
    lacking: frozenset[str]

    def draw(self, name: str) -> bool:
        """Return whether they have all letters of a name."""
        return self.lacking.isdisjoint(_letters(name))

    def label(self, name: str, number: int) -> str:
        """Return what a picture calls a class: its name, or its number if that cannot be drawn."""
        return name if self.draw(name) else f"#{number}"


def find(names: Iterable[str]) -> Fonts:
    """Return fonts for these names; where matplotlib's own has all letters, no other is opened."""
    return _find(frozenset().union(*map(_letters, names)))


@functools.lru_cache(maxsize=8)
def _find(letters: frozenset[str]) -> Fonts:
    from matplotlib import font_manager, rcParams

    families = list(rcParams["font.family"])
    usual = font_manager.findfont(font_manager.FontProperties(family=families))
    lacking = letters - _letters_of(usual, 0, letters)
    if lacking:
        found = _look_through(lacking)
        while found and lacking:
            # Few fonts, as names of one script should look alike; without serifs, as the usual one.
            family = max(found, key=lambda one: (len(found[one] & lacking), "Sans" in one))
            covered = found.pop(family) & lacking
            if not covered:
                break
            families.append(family)
            lacking -= covered
    return Fonts(tuple(families), lacking)


def _letters(name: str) -> frozenset[str]:
    """Return what of a name needs a glyph."""
    letters = set(unicodedata.normalize("NFC", name)) - _JOINERS
    return frozenset(one for one in letters if not one.isspace())


def _look_through(letters: Collection[str]) -> dict[str, frozenset[str]]:
    """Return, of each family that has some of the letters, which ones."""
    from matplotlib import font_manager

    manager = font_manager.fontManager
    known = {entry.fname for entry in manager.ttflist}
    end_s = time.monotonic() + LIMIT_S
    for path in sorted(set(font_manager.findSystemFonts()) - known):
        # Installed since matplotlib made its list.
        if time.monotonic() > end_s:
            break
        try:
            manager.addfont(path)
        except Exception as error:  # as many kinds as there are broken fonts
            log.debug("%s is no font that can be drawn with: %s", path, error)
    found: dict[str, frozenset[str]] = {}
    end_s = time.monotonic() + LIMIT_S
    for entry in manager.ttflist:
        if time.monotonic() > end_s:
            break
        # Of others it would say that there is no upright one.
        is_usual = (entry.style, entry.weight) in (("normal", 400), ("normal", "normal"))
        if is_usual and entry.name not in found and not entry.name.startswith(_BOXES):
            found[entry.name] = _letters_of(entry.fname, entry.index, letters)
    return found


def _letters_of(path: str, index: int, letters: Collection[str]) -> frozenset[str]:
    """Return which letters a font has.

    One of coloured pictures, as of emoji, has none: matplotlib cannot draw them.

    Args:
        index: of the font in its file.
    """
    from matplotlib.ft2font import FaceFlags, FT2Font

    try:
        font = FT2Font(path, face_index=index)
    except (OSError, RuntimeError) as error:
        log.debug("%s cannot be drawn with: %s", path, error)
        return frozenset()
    if not font.scalable or font.face_flags & FaceFlags.COLOR:
        return frozenset()
    return frozenset(letter for letter in letters if font.get_char_index(ord(letter)))
