"""Names in scripts that matplotlib's own font lacks: by an installed font, or as numbers."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen

from tests.conftest import REPOSITORY
from tests.run.report.test_run_report import report
from trainer.run.report import fonts

NOWHERE = "\U0010fff0"
"""a letter for private use, which no font has"""

SCRIPT = """
import warnings, numpy as np
from pathlib import Path
from trainer.run.report import fonts, plots
from trainer.training.confusion import Confusion
warnings.simplefilter("error")
names = ["\\U0010fff1 one", "two", "\\U0010fff0"]
found = fonts.find(names)
print(found.families[1:], [found.label(name, place) for place, name in enumerate(names)])
cells = np.arange(3)
plots.save(plots.draw_confusion(Confusion(3, cells, cells, cells + 1), names), Path("made.png"))
"""


def write_font(path: Path, letter: str) -> None:
    """Write a font that has one letter, a square."""
    pen = TTGlyphPen(None)
    for number, point in enumerate(((0, 0), (0, 700), (700, 700), (700, 0))):
        (pen.lineTo if number else pen.moveTo)(point)
    pen.closePath()
    square = pen.glyph()
    font = FontBuilder(1000, isTTF=True)
    font.setupGlyphOrder([".notdef", "square"])
    font.setupCharacterMap({ord(letter): "square"})
    font.setupGlyf({".notdef": square, "square": square})
    font.setupHorizontalMetrics(dict.fromkeys((".notdef", "square"), (800, 0)))
    font.setupHorizontalHeader(ascent=800, descent=-200)
    font.setupNameTable({"familyName": "Lockstep Test", "styleName": "Regular"})
    font.setupOS2(sTypoAscender=800, usWeightClass=400)
    font.setupPost()
    path.parent.mkdir(parents=True)
    font.save(path)


def test_an_installed_font_draws_what_the_usual_one_lacks(tmp_path: Path) -> None:
    write_font(tmp_path / "share" / "fonts" / "own.ttf", "\U0010fff1")
    (tmp_path / "share" / "fonts" / "broken.ttf").write_bytes(b"no font")
    places = {"XDG_DATA_HOME": str(tmp_path / "share"), "PYTHONPATH": str(REPOSITORY)}
    drawn = subprocess.run(
        [sys.executable, "-c", SCRIPT], env=os.environ | places, cwd=tmp_path,
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert drawn.stdout == "('Lockstep Test',) ['\\U0010fff1 one', 'two', '#2']\n"
    assert drawn.stderr == ""
    assert (tmp_path / "made.png").exists()


def test_names_that_no_font_has_are_numbers_explained_in_the_page(tmp_path: Path) -> None:
    names = ["T-shirt", f"<{NOWHERE}>", "cafe\N{COMBINING ACUTE ACCENT} 1\N{ZERO WIDTH JOINER}2"]
    found = fonts.find(names)
    assert [found.label(name, place) for place, name in enumerate(names)] == [
        names[0], "#1", names[2],
    ]  # fmt: skip
    text = report(tmp_path, names=names).text
    assert f"In the picture #1 is <{NOWHERE}> : no installed font" in re.sub(r"\s*:", " :", text)
    assert "#0" not in text
