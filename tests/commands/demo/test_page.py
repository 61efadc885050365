"""The page in a real browser, on a phone and on a desk: pictures and the camera."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.browser import CHROMIUM, Browser
from tests.commands.demo.serving import ask, serve
from tests.stored import write_model
from trainer.commands.demo.server import DemoServer

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")

HOSTILE = "<img src=x onerror=alert(1)>.png"
DONE = (
    "!document.querySelector('[aria-busy]') && "
    "document.querySelectorAll('.answer, .error').length == "
)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    words = ("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream")
    with Browser(tmp_path_factory.mktemp("profile"), *words) as browser:
        yield browser


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DemoServer]:
    model = write_model(tmp_path_factory.mktemp("run") / "model.safetensors", image_size=(28, 28))
    with serve(model) as server:
        yield server


@pytest.fixture
def pictures(tmp_path: Path) -> list[Path]:
    pixels = np.random.default_rng(0).integers(0, 256, (90, 60, 3), dtype=np.uint8)
    for name in (HOSTILE, "upright.jpg"):
        Image.fromarray(pixels).save(tmp_path / name)
    (tmp_path / "broken.png").write_bytes(b"no picture")
    return [tmp_path / name for name in (HOSTILE, "upright.jpg", "broken.png")]


@pytest.mark.parametrize(("width", "dark"), [(390, False), (1280, True)])
def test_pictures_are_answered(
    browser: Browser, server: DemoServer, pictures: list[Path], width: int, dark: bool
) -> None:
    look = browser.open(server.urls[0], width, dark=dark)
    assert look.text.startswith("run")
    browser.choose_files("#files", *pictures)
    browser.wait_until(f"{DONE} 3")
    look = browser.look()
    assert [words for words in look.complaints if "415" not in words] == []
    assert all(address.startswith(server.urls[0]) for address in look.requests)
    assert (look.width, look.broken, look.images) == (width, [], 4)
    assert HOSTILE in look.text
    assert "the picture: is not a picture that can be read" in look.text
    found = ask(server, "/predict", pictures[1].read_bytes())[1]
    assert f"{found['class']} {100 * found['probability']:.1f} %" in look.text
    assert f"in red: what speaks for {found['explained']}" in look.text


def test_another_class_is_explained_where_it_is_chosen(
    browser: Browser, server: DemoServer, pictures: list[Path]
) -> None:
    browser.open(server.urls[0], 390)
    browser.choose_files("#files", pictures[1])
    browser.wait_until(f"{DONE} 1")
    other = "document.querySelector('.classes button[aria-pressed=false]')"
    name = browser.evaluate(f"{other}.querySelector('.name').textContent")
    browser.evaluate(f"{other}.click()")
    words = f"in red: what speaks for {name}"
    browser.wait_until(f"document.body.innerText.includes({words!r})")


def test_the_camera_takes_a_picture(browser: Browser, server: DemoServer) -> None:
    browser.open(server.urls[0], 390)
    assert browser.evaluate("document.getElementById('shoot').hidden")
    browser.evaluate("document.getElementById('camera').click()")
    browser.wait_until("document.getElementById('video').videoWidth > 0")
    browser.evaluate("document.getElementById('take').click()")
    browser.wait_until(f"{DONE} 1")
    browser.evaluate("document.getElementById('close').click()")
    assert browser.evaluate("document.getElementById('video').srcObject === null")
    look = browser.look()
    assert look.complaints == []
    assert (look.broken, look.images) == ([], 2)
