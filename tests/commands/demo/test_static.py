"""`demo --static`: the page as files, whose model runs in a real browser."""

from __future__ import annotations

import functools
import http.server
import json
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.browser import CHROMIUM, Browser
from tests.commands.command import Capture, run_command
from tests.stored import write_model
from trainer.commands.demo import static
from trainer.data.sources.download import cache_folder
from trainer.finished import trained_model

NAMES = ["ant", "<b>bee</b>", "Käfer"]


@pytest.fixture(scope="module")
def runtime(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of onnxruntime-web."""
    cached = cache_folder(f"onnxruntime-web-{static.ORT_VERSION}")
    if all((cached / name).exists() for name in static.ORT_FILES):
        return cached
    if shutil.which("npm") is None:
        pytest.skip("npm is not installed")
    folder = tmp_path_factory.mktemp("npm")
    words = ["npm", "pack", "--silent", f"onnxruntime-web@{static.ORT_VERSION}"]
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip("npm has no onnxruntime-web here")
    (archive,) = folder.glob("*.tgz")
    shutil.unpack_archive(archive, folder, filter="data")
    return folder / "package" / "dist"


def write(path: Path, **more: Any) -> Path:
    return write_model(
        path, "lab_cnn", channels=3, image_size=(28, 28),
        change=lambda found: found.update(class_names=NAMES, temperature=0.4, **more),
    )  # fmt: skip


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("run") / "model.safetensors")


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory, model: Path, runtime: Path) -> Path:
    """The folder of the page."""
    folder = tmp_path_factory.mktemp("web") / "site"
    stored = trained_model.load(model)
    limits = {"min_confidence": 0.0, "max_megapixels": 1}
    assert static.write(stored, folder, "run", limits, runtime)["has_maps"]
    return folder


@pytest.fixture(scope="module")
def site(pages: Path) -> Iterator[str]:
    """The address of the page."""

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    handler = functools.partial(Handler, directory=str(pages))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,)).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/"
        server.shutdown()


@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
def test_the_page_answers_as_predict_does(
    model: Path, site: str, tmp_path: Path, capsys: Capture
) -> None:
    random = np.random.default_rng(0)
    pictures = {}
    for name, size in {"wide.png": (40, 90), "large.jpg": (700, 500), "small.png": (9, 9)}.items():
        pixels = random.integers(0, 256, (*size, 3), dtype=np.uint8)
        smooth = Image.fromarray(pixels[: size[0] // 3, : size[1] // 3]).resize(size[::-1])
        smooth.save(tmp_path / name)
        pictures[name] = tmp_path / name
    upright = Image.Exif()
    upright[0x0112] = 6
    smooth.resize((30, 50)).save(tmp_path / "turned.jpg", exif=upright)
    Image.new("RGBA", (30, 30), (200, 10, 10, 90)).save(tmp_path / "glass.png")
    Image.new("L", (1500, 1000)).save(tmp_path / "too many.png")
    (tmp_path / "broken.png").write_bytes(b"no picture")
    pictures |= {name: tmp_path / name for name in ("turned.jpg", "glass.png")}
    code, output, errors = run_command(capsys, "predict", model, *pictures.values(), "--json")
    assert code == 0, errors
    rows = {Path(row["file"]).name: row for row in map(json.loads, output.splitlines())}
    with Browser(tmp_path / "profile") as browser:
        look = browser.open(site, 390)
        assert "<b>bee</b>" in look.text
        assert "Pictures stay on your device" in look.text
        browser.evaluate("import('./classify.js').then(found => window.classify = found.classify)")
        browser.choose_files("#files", *pictures.values())
        found = browser.evaluate(
            "Promise.all([...document.getElementById('files').files].map(async (file) => "
            "[file.name, await classify(file)]))"
        )
        for name, answer in found:
            row = rows[name]
            # The browser decodes JPEG, and lays on white, by a program of its own.
            allowed = 1e-6 if name.endswith(".png") and name != "glass.png" else 0.02
            for label, probability in row["probabilities"].items():
                assert abs(answer["probabilities"][label] - probability) <= allowed, name
            assert answer["class"] == row["class"]
            assert answer["map"].startswith("data:image/png;base64,")
        browser.open(site, 390, dark=True)
        more = [tmp_path / "too many.png", tmp_path / "broken.png", pictures["wide.png"]]
        browser.choose_files("#files", *more)
        browser.wait_until("document.querySelectorAll('.answer, .error').length == 3")
        look = browser.look()
        assert look.complaints == []
        assert all(address.startswith(site) for address in look.requests)
        assert (look.width, look.broken, look.images) == (390, [], 2)
        assert "has 1.5 megapixels; 1 are allowed" in look.text
        assert "is not a picture that this browser can read" in look.text
        assert f"{rows['wide.png']['class']} " in look.text


@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
def test_labels_doubts_and_what_a_browser_does_not_read(
    pages: Path, site: str, tmp_path: Path
) -> None:
    """In a folder of a web space, without a camera."""
    random = np.random.default_rng(0)
    Image.fromarray(random.integers(0, 256, (40, 60, 3), dtype=np.uint8)).save(tmp_path / "a.png")
    Image.fromarray(random.integers(0, 2**16, (40, 60), dtype=np.uint16)).save(tmp_path / "b.png")
    known = json.loads((pages / "model.json").read_text())
    expected = {
        "several": ({"thresholds": [0.0, 1.0, 0.0]}, "ant, Käfer"),
        "none": ({"thresholds": [1.0, 1.0, 1.0]}, "no label"),
        "doubt": ({"min_confidence": 0.999}, "not sure"),
    }
    for name, (change, _) in expected.items():
        shutil.copytree(pages, tmp_path / name)
        (tmp_path / name / "model.json").write_text(json.dumps(known | change))
        shutil.move(tmp_path / name, pages / name)
    with Browser(tmp_path / "profile") as browser:
        for name, (_, answer) in expected.items():
            browser.open(f"{site}{name}/", 390)
            browser.choose_files("#files", tmp_path / "a.png", tmp_path / "b.png")
            browser.wait_until("document.querySelectorAll('.answer, .error').length == 2")
            assert browser.evaluate("document.querySelector('.answer').textContent") == answer
            look = browser.look()
            assert "has 16 bits a channel" in look.text
            assert look.complaints == []
        browser.evaluate("document.getElementById('camera').click()")
        browser.wait_until("document.getElementById('status').className == 'error'")
        assert "The camera cannot be used: " in browser.look().text
        assert browser.evaluate("document.getElementById('viewfinder').hidden")


def test_the_maps_add_up_to_the_logits(model: Path, pages: Path) -> None:
    """And swapped pixels are those of `predict --invert`."""
    onnxruntime = pytest.importorskip("onnxruntime")
    import torch

    stored = trained_model.load(model)
    bias = stored.module.linear.bias.detach().numpy()
    session = onnxruntime.InferenceSession(pages / "model.onnx")
    pictures = np.random.default_rng(0).integers(0, 256, (1, 140, 99, 3), dtype=np.uint8)
    images = []
    for invert in (0, 1):
        given = {"pictures": pictures, "invert": np.array(invert, np.float32)}
        probabilities, image, maps = session.run(["probabilities", "image", "maps"], given)
        answer = stored.probabilities(torch.from_numpy(image)).numpy()
        assert np.allclose(answer, probabilities, atol=1e-5)
        logits = (maps.sum((2, 3)) + bias) / stored.temperature
        shares = np.exp(logits) / np.exp(logits).sum()
        assert np.allclose(shares, probabilities, atol=1e-4)
        images.append(image)
    assert np.array_equal(images[1], 255 - images[0])


def test_what_it_refuses(model: Path, tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "index.html").touch()
    (tmp_path / "ort").mkdir()
    site = tmp_path / "site"
    for words, message in (
        (["--static", tmp_path / "full"], "is there already"),
        (["--static", model], "is there already"),
        (["--static", tmp_path / ("n" * 300)], "cannot be written (File name too long)"),
        (["--static", site, "--ort", tmp_path / "ort"], "ort.wasm.bundle.min.mjs is missing"),
        (["--static", site, "--port", "80"], "--static: writes files and serves nothing"),
        (["--ort", tmp_path], "--ort: is only for --static"),
    ):
        code, output, errors = run_command(capsys, "demo", model, *words)
        assert (code, output) == (2, "")
        assert message in errors
    for name in static.ORT_FILES:
        (tmp_path / "ort" / name).write_bytes(b"another")
    code, _, errors = run_command(
        capsys, "demo", model, "--static", site, "--ort", tmp_path / "ort"
    )
    assert (code, "it has another SHA-256" in errors) == (2, True)
    assert not site.exists()
