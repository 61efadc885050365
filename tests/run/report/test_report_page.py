"""The report in a real browser: narrow and wide, light and dark, with the worst of names."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests.browser import CHROMIUM, Browser
from tests.run.report.test_run_report import write_run
from trainer.commands import compare
from trainer.finished import comparison
from trainer.run.report.health import Health, LayerInput
from trainer.run.report.run_report import write_report

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")

WIDTHS = (320, 390, 1280)
KINDS = ("usual", "hostile", "many classes", "none wrong")
HOSTILE = [
    "<script>console.error('run')</script>",
    '"><img src=x onerror=alert(1)>',
    "a & b &lt; c",
    "}</style><h1>out</h1>",
    "{{ 7 * 7 }}",
    "Donaudampfschifffahrtsgesellschaft" * 3,
    "$x^{$",
    "шарф 围巾",
]


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with Browser(tmp_path_factory.mktemp("profile")) as browser:
        yield browser


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Reports of different runs."""
    names = [f"class {place}" for place in range(30)]
    rounding = ["<b>threads</b> 1 against 2"]
    choices: list[dict[str, Any]] = [
        {"shape": (28, 28)},
        {"names": HOSTILE, "samples": 80, "rounding": rounding},
        {"names": names, "samples": 90, "shape": (16, 24, 3)},
        {"mistakes": False, "validation": False, "lab": False},
    ]
    found = {}
    for kind, choice in zip(KINDS, choices, strict=True):
        folder = tmp_path_factory.mktemp("report")
        images = write_run(folder, **choice)
        Image.new("RGBA", (1200, 900), (120, 60, 60, 90)).save(folder / "features.png")
        write_report(folder, images.__getitem__)
        found[kind] = folder / "report.html"
    return found


@pytest.mark.parametrize(
    ("kind", "width", "dark"),
    [
        (kind, width, (row + column) % 2 == 1)  # each two of the three meet
        for row, kind in enumerate(KINDS)
        for column, width in enumerate(WIDTHS)
    ],
)
def test_the_page_loads_and_fits(
    browser: Browser, pages: dict[str, Path], kind: str, width: int, dark: bool
) -> None:
    look = browser.open(pages[kind], width, dark=dark)
    assert look.complaints == []
    assert look.requests == [], "nothing comes from outside"
    assert look.broken == []
    assert look.images >= 6
    assert look.width == width, "the page is wider than the window"
    red, green, blue = map(int, re.findall(r"\d+", look.page))
    assert (max(red, green, blue) < 60) if dark else (min(red, green, blue) > 200)


def test_the_result_is_read_first(browser: Browser, pages: dict[str, Path]) -> None:
    look = browser.open(pages["usual"], 390)
    assert look.title == "68.33\N{NO-BREAK SPACE}% · lab_cnn on fashion_mnist"
    words = " ".join(look.text.split())
    assert words.startswith(
        "lab_cnn on fashion_mnist Test accuracy 68.33 % 41 of 60 images correct"
    )
    assert "Shirt worst 5.00 %" in words


ROWS = "document.querySelector('table.classes').tBodies[0].rows"
NAMES = f"Array.from({ROWS}).filter(row => !row.hidden).map(row => row.cells[0].innerText)"
ACCURACIES = f"Array.from({ROWS}).map(row => parseFloat(row.cells[2].innerText))"
HEAD = "document.querySelector('table.classes').tHead.rows[0].cells[2]"


def test_a_table_is_sorted_and_searched_by_keyboard(
    browser: Browser, pages: dict[str, Path]
) -> None:
    browser.open(pages["many classes"], 1280)
    browser.evaluate(f"{HEAD}.querySelector('button').focus()")
    assert browser.evaluate(f"{HEAD}.getAttribute('aria-sort')") is None
    for kind, falling in (("ascending", False), ("descending", True)):
        browser.press("Enter")
        assert browser.evaluate(f"{HEAD}.getAttribute('aria-sort')") == kind
        accuracies = browser.evaluate(ACCURACIES)
        assert accuracies == sorted(accuracies, reverse=falling)
        assert len(set(accuracies)) > 1
    field = "document.querySelector('.search input')"
    assert browser.evaluate(f"{field}.labels[0].innerText").strip() == "Search: class"
    search = f"{field}.value = 'CLASS 2'; {field}.dispatchEvent(new Event('input'))"
    browser.evaluate(search)
    found = [name.removesuffix(" worst") for name in browser.evaluate(NAMES)]
    assert sorted(found) == sorted(["class 2", *(f"class 2{number}" for number in range(10))])
    assert browser.evaluate("document.querySelector('.search output').innerText") == "11 of 30"


def test_a_mark_behind_a_number_does_not_change_its_place(browser: Browser, tmp_path: Path) -> None:
    """As behind the sizes of layers that are out of proportion."""
    layers = [
        LayerInput(name, torch.zeros(1), torch.zeros(1), size**2, 1)
        for name, size in (("huge", 25_000.0), ("usual", 300.0), ("small", 9.0))
    ]
    images = write_run(tmp_path)
    write_report(tmp_path, images.__getitem__, examined=Health(60, layers))
    browser.open(tmp_path / "report.html", 1280)
    table = "[...document.querySelectorAll('table')].find(one => one.innerText.includes('Dead'))"
    browser.evaluate(f"{table}.tHead.rows[0].cells[4].querySelector('button').click()")
    names = browser.evaluate(f"Array.from({table}.tBodies[0].rows, row => row.cells[0].innerText)")
    assert names == ["small", "usual", "huge"]


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("kind", ["usual", "many classes"])
def test_small_pictures_are_enlarged_by_whole_numbers(
    browser: Browser, pages: dict[str, Path], kind: str, width: int
) -> None:
    browser.open(pages[kind], width)
    shown = browser.evaluate(
        "Array.from(document.querySelectorAll('figure img'), image => [image.clientWidth / "
        "image.naturalWidth, getComputedStyle(image).imageRendering])"
    )
    assert len(shown) > 1
    assert all(factor > 1 and factor == int(factor) for factor, _ in shown)
    assert {rendering for _, rendering in shown} == {"pixelated"}


def test_a_thousand_classes_are_listed_in_a_page_of_two_megabytes(
    browser: Browser, tmp_path: Path
) -> None:
    names = [f"kind {place}" for place in range(1200)]
    images = write_run(tmp_path, names=names, samples=2400)
    write_report(tmp_path, images.__getitem__)
    page = tmp_path / "report.html"
    assert page.stat().st_size < 2e6
    look = browser.open(page, 390)
    assert (look.complaints, look.width) == ([], 390)
    assert "All 1,200 classes, to be searched and sorted" in look.text
    rows = "document.querySelectorAll('details table')[0].tBodies[0].rows"
    assert browser.evaluate(f"{rows}.length") == 1200
    assert browser.evaluate(f"{rows}[0].cells[0].textContent.trim()") == "kind 1199", "the worst"
    assert "Most often confused" in look.text


def test_names_are_text_and_nothing_else(browser: Browser, pages: dict[str, Path]) -> None:
    look = browser.open(pages["hostile"], 1280)
    for name in HOSTILE:
        assert name in look.text


def test_the_pictures_are_dark_in_the_dark(
    browser: Browser, pages: dict[str, Path], tmp_path: Path
) -> None:
    """The plots are drawn on white; only small parts of the page may stay so."""
    bright = {}
    for dark in (False, True):
        browser.open(pages["usual"], 1280, dark=dark)
        browser.screenshot(tmp_path / "page.png")
        with Image.open(tmp_path / "page.png") as picture:
            bright[dark] = float(np.mean(np.asarray(picture.convert("L")) > 128))
    assert bright[False] > 0.8
    assert bright[True] < 0.15


@pytest.mark.parametrize("width", WIDTHS)
def test_a_comparison_fits_too(
    browser: Browser, pages: dict[str, Path], tmp_path: Path, width: int
) -> None:
    """Of runs whose folders have long names."""
    runs = [comparison.read(pages[kind].parent) for kind in ("usual", "hostile")]
    compare.write(tmp_path / "page.html", runs, compare.compare_all(runs))
    look = browser.open(tmp_path / "page.html", width, dark=True)
    assert (look.complaints, look.requests, look.broken) == ([], [], [])
    assert look.images == 3
    assert look.width == width
    assert str(runs[1].folder) in look.text


def test_the_browser_tells_what_is_wrong_with_a_page(browser: Browser, tmp_path: Path) -> None:
    """Otherwise the tests above would prove nothing."""
    (tmp_path / "bad.html").write_text(
        '<meta name="viewport" content="width=device-width">'
        '<img alt="gone" src="gone.png"><div style="width: 2000px">wide</div>'
        "<script>console.error('wrong'); nothing();</script>",
        encoding="utf-8",
    )
    look = browser.open(tmp_path / "bad.html", 390)
    assert look.broken == ["gone"]
    assert look.width > 1900
    assert any("wrong" in complaint for complaint in look.complaints)
    assert any("ReferenceError" in complaint for complaint in look.complaints)
    assert look.requests == [(tmp_path / "gone.png").resolve().as_uri()]
