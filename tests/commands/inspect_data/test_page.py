"""The page of `python -m trainer inspect-data --page`."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from PIL import Image

from tests.commands.command import Capture, run_command
from tests.commands.inspect_data.looking import inspect, of_folder


def test_the_page_loads_nothing_and_escapes_names(
    capsys: Capture, doubled: Path, tmp_path: Path
) -> None:
    for part in ("train", "validation", "test"):
        (doubled / part / "dog").rename(doubled / part / "<b>&dog")
    page = tmp_path / "page.html"
    code, output, _ = run_command(capsys, "inspect-data", *of_folder(doubled), "--page", page)
    assert code == 0
    assert str(page) in output
    text = page.read_text(encoding="utf-8")
    assert "&lt;b&gt;&amp;dog" in text
    assert "<b>&dog" not in text
    addresses = re.findall(r'(?:src|href)="([^"]{0,30})', text)
    assert len(addresses) == 4 + 5 + 2 + 3 + 2 + 2 * 8
    assert all(address.startswith("data:image/png;base64,") for address in addresses)


@pytest.mark.skipif(not shutil.which("chromium"), reason="needs Debian's chromium")
def test_a_browser_shows_the_page(capsys: Capture, doubled: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    inspect(capsys, *of_folder(doubled), "--page", page)
    browser = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--window-size=1000,3000"]
    shown = subprocess.run(
        [*browser, "--enable-logging=stderr", f"--screenshot={tmp_path}/a.png", page.as_uri()],
        capture_output=True, text=True, check=True, timeout=120,
    )  # fmt: skip
    assert "CONSOLE" not in shown.stderr
    with Image.open(tmp_path / "a.png") as picture:
        colours = picture.convert("RGB").getcolors(2**24)
    assert colours is not None
    # The first sample is all red.
    assert any(red > 200 and max(green, blue) < 50 for _, (red, green, blue) in colours)


def test_the_page_shows_samples_as_epochs_train_on_them(
    capsys: Capture, digits: Path, tmp_path: Path
) -> None:
    """Every epoch another picture, and the one that a run of this seed has."""
    page = tmp_path / "page.html"
    policy = "[{rotate: {degrees: 40}}, {erase: {probability: 1}}]"
    words = [*of_folder(digits), "--data.augment", policy, "--page", page]
    inspect(capsys, *words)
    text = page.read_text()
    section = text[text.index("As they are trained on") : text.index("<h2>Samples")]
    pictures = re.findall(r'src="(data:[^"]+)" [^>]*alt="epoch (\d)"', section)
    assert [int(epoch) for _, epoch in pictures] == [*range(1, 9)] * 8
    assert len({picture for picture, _ in pictures}) == 64
    assert "degrees" in section
    inspect(capsys, *words, "--seed", "1")
    assert pictures[0][0] not in page.read_text()
    inspect(capsys, *of_folder(digits), "--data.augment", "none", "--page", page)
    assert "As they are trained on" not in page.read_text()


def test_looking_at_a_run_does_not_run_its_augmentation(
    capsys: Capture, run: Path, digits: Path, tmp_path: Path
) -> None:
    folder, file = tmp_path / "run", tmp_path / "mine.py"
    shutil.copytree(run, folder)
    file.write_text(
        f"open({str(tmp_path / 'ran')!r}, 'w')\ndef mine(images, numbers): return images\n"
    )
    config = folder / "config.yaml"
    stored = config.read_text().replace(" augment: none", f" augment: ['{file}:mine']")
    config.write_text(stored)
    inspect(capsys, folder, "--data.root", digits, "--page", tmp_path / "page.html")
    assert not (tmp_path / "ran").exists()
