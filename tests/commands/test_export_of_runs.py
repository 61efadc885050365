"""Exports of a run are tested on its images, and take pictures of any size where they are asked to.

In this process: a worker takes seconds to start.
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import openvino
import pytest
import torch
from PIL import Image

from tests.commands.command import Capture, run_command
from tests.commands.test_export import export, in_process
from tests.conftest import REPOSITORY
from tests.runs import Run, train_here
from tests.stored import write_model
from trainer import load_model
from trainer.base.errors import UserError
from trainer.commands.export import configuration_of
from trainer.data.pictures import resizing
from trainer.data.pictures.resizing import Fit
from trainer.finished import trained_model
from trainer.finished.export import checking, formats, pillow_filter, record, timing, writing
from trainer.finished.export.description import Order
from trainer.ranks import cgroups

__all__ = ["in_process"]


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("export") / "run"
    assert train_here(folder, "--train.epochs", "2") == 0
    return Run(folder, 0)


def probabilities_of(file: Path, form: str, batch: np.ndarray) -> np.ndarray:
    """What a file gives, by its own library."""
    if form == "pt2":
        found = torch.export.load(file).module()(torch.from_numpy(batch)).detach().numpy()
    elif form == "openvino":
        settings = {"INFERENCE_PRECISION_HINT": "f32"}
        found = openvino.Core().compile_model(file, "CPU", settings)(batch)[0]
    else:
        session = onnxruntime.InferenceSession(file)
        (found,) = session.run(None, {session.get_inputs()[0].name: batch})
    return np.array(found)


@pytest.mark.usefixtures("in_process")
@pytest.mark.parametrize("form", ["pt2", "openvino", "int8"])
def test_a_run_says_what_a_format_loses(form: str, digits: Run, capsys: Capture) -> None:
    receipt = (digits.folder / "receipt.json").read_bytes()
    found = export(capsys, digits.folder, "--format", form)
    noted = digits.json("exports.json")[form]
    assert noted["tested"] == found["tested"]
    assert noted["file"] == Path(found["file"]).name
    assert noted["weights_sha256"] == digits.json("results.json")["weights_sha256"]
    with np.load(digits.folder / "predictions.npz") as kept:
        target, ours = kept["target"], kept["probabilities"]
    from sklearn.datasets import load_digits

    assert noted["tested"]["images"] == len(target)
    own_accuracy = digits.json("results.json")["test"]["accuracy"]
    assert noted["tested"]["own_accuracy"] == pytest.approx(own_accuracy)
    lost = noted["tested"]["own_accuracy"] - noted["tested"]["accuracy"]
    assert noted["tested"]["accuracy_lost"] == lost
    exact = form != "int8"
    assert (noted["tested"]["largest_probability_difference"] < 1e-4) == exact
    assert ("calibration" in noted) == (not exact)
    # The file itself gives that, of any number of images at once.
    pixels = np.round(load_digits().images * 255 / 16).astype(np.float32)[:, None]
    logits = probabilities_of(digits.folder / noted["file"], form, pixels)
    assert logits.shape == (1797, 10)
    assert len(np.unique(logits)) > 256  # they are not rounded
    assert (digits.folder / "receipt.json").read_bytes() == receipt
    assert not [path for path in digits.folder.iterdir() if path.name.startswith(".model")]
    assert ours.shape == (len(target), 10)
    assert str(REPOSITORY).encode() not in (digits.folder / noted["file"]).read_bytes()


@pytest.mark.usefixtures("in_process")
@pytest.mark.parametrize(("form", "channels"), [("onnx", 3), ("pt2", 1), ("openvino", 3)])
def test_pictures_of_any_size_give_what_predict_gives(
    form: str, channels: int, tmp_path: Path, capsys: Capture
) -> None:
    def change(metadata: dict[str, Any]) -> None:
        metadata |= {"resize": "crop", "crop_share": 0.9, "interpolation": "bicubic"}

    file = write_model(
        tmp_path / "model.safetensors", channels=channels, image_size=(12, 16), change=change
    )
    found = export(capsys, file, "--format", form, "--with-preprocessing")
    assert found["tested"] is None
    assert "config.yaml" in found["not_tested_because"]
    assert found["input"]["shape"] == ["batch", "height", "width", "1 or 3"]
    model = load_model(file)
    random = np.random.Generator(np.random.Philox(0))
    for height, width in ((1, 1), (1, 9), (12, 16), (300, 33), (33, 300), (90, 120)):
        pixels = random.integers(0, 256, (height, width, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / "one.png")
        expected = model.probabilities(model.read(tmp_path / "one.png")[None]).numpy()
        gotten = probabilities_of(Path(found["file"]), form, pixels[None])
        assert gotten == pytest.approx(expected, abs=5e-3 if form == "openvino" else 1e-5)


@pytest.mark.usefixtures("in_process")
def test_greys_of_any_size_in_whole_numbers(
    digits: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: Capture
) -> None:
    """And of many test images only some are given one by one."""
    monkeypatch.setattr(checking, "MOST_PICTURES", 40)
    file = tmp_path / "x.onnx"
    words = ["--format", "int8", "--with-preprocessing", "--output", file]
    code, output, errors = run_command(capsys, "export", digits.folder, *words)
    assert (code, errors) == (0, "")
    assert "tested    on 40, evenly spread over the 360, test images: accuracy" in output
    tested = digits.json("exports.json")["int8_with_preprocessing"]["tested"]
    assert (tested["images"], tested["test_images"]) == (40, 360)
    assert tested["other_answers"] <= 4
    model = load_model(digits.folder)
    random = np.random.Generator(np.random.Philox(0))
    for shape in ((20, 9, 1), (20, 9, 3), (8, 8, 1)):
        pixels = random.integers(0, 256, shape, np.uint8)
        Image.fromarray(pixels.squeeze()).save(tmp_path / "one.png")
        expected = model.probabilities(model.read(tmp_path / "one.png")[None]).numpy()
        assert probabilities_of(file, "int8", pixels[None]) == pytest.approx(expected, abs=0.1)


def test_without_the_images_that_were_named_nothing_is_written(
    digits: Run, tmp_path: Path, capsys: Capture
) -> None:
    before = sorted(digits.folder.iterdir())
    words = ["--format", "torchscript", "--data.name", "npy", "--data.root", tmp_path / "none"]
    code, output, errors = run_command(capsys, "export", digits.folder, *words)
    assert (code, output) == (2, "")
    assert "data.root" in errors
    assert sorted(digits.folder.iterdir()) == before


def test_exports_that_end_at_once_are_all_noted(tmp_path: Path) -> None:
    with ThreadPoolExecutor(12) as pool:
        for noted in [pool.submit(record.add, tmp_path, str(key), {}) for key in range(12)]:
            noted.result()
    assert record.read(tmp_path).keys() == set(map(str, range(12)))


def test_the_filter_gives_the_pixels_of_pillow() -> None:
    random = np.random.Generator(np.random.Philox(1))
    fits = [
        Fit("crop", 0.875, "nearest"), Fit("pad", 1.0, "box"), Fit("stretch", 1.0, "bilinear"),
        Fit("pad", 1.0, "hamming"), Fit("crop", 0.875, "bicubic"), Fit("crop", 1.0, "lanczos"),
    ]  # fmt: skip
    for size in ((1, 1), (1, 40), (40, 1), (28, 20), (97, 31), (31, 97), (64, 250)):
        pixels = (random.integers(0, 2, (*size, 3)) * 255).astype(np.uint8)
        images = torch.from_numpy(pixels).permute(2, 0, 1)[None]
        for fit in fits:
            found = pillow_filter.resize(images, (28, 20), fit)[0].permute(1, 2, 0)
            assert np.array_equal(found.numpy(), resizing.resize(pixels, (28, 20), fit)), (
                size,
                fit,
            )


def test_a_missing_openvino_is_named(
    digits: Run, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    before = sorted(digits.folder.iterdir())
    code, output, errors = run_command(capsys, "export", digits.folder, "--format", "openvino")
    assert (code, output) == (2, "")
    assert "--format openvino: openvino cannot be imported" in errors
    assert "lockstep-trainer[openvino]" in errors
    assert sorted(digits.folder.iterdir()) == before


def test_int8_is_calibrated_on_what_its_network_takes(digits: Run, tmp_path: Path) -> None:
    """Behind the preprocessing that is float32, though pictures are uint8."""
    stored = trained_model.load(digits.folder)
    config = configuration_of(digits.folder, [])
    for with_preprocessing, kind in ((False, np.uint8), (True, np.float32)):
        order = Order("int8", "uint8", with_preprocessing)
        file, _ = writing._calibrate(stored, order, config, tmp_path)
        assert np.load(file).dtype == kind


@pytest.mark.usefixtures("in_process")
def test_a_run_that_cannot_be_written_is_exported_elsewhere(
    digits: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capsys: Capture,
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(record, "add", refuse)
    words = ["export", digits.folder, "--format", "torchscript", "--output", tmp_path / "x.pt"]
    code, _, errors = run_command(capsys, *words)
    assert code == 0, errors
    assert "exports.json: not noted there (Permission denied)" in caplog.text
    assert (tmp_path / "x.pt").stat().st_size > 1000


def test_no_pair_is_left_rather_than_one_of_two_exports(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target, weights = tmp_path / "model.xml", tmp_path / "model.bin"

    def write(content: str) -> Callable[[Path], None]:
        def write_pair(temporary: Path) -> None:
            temporary.write_text(content)
            temporary.with_suffix(".bin").write_text(content)

        return write_pair

    writing._write_with_weights(target, write("old"))
    assert target.read_text() == weights.read_text() == "old"
    replace = Path.replace

    def end_before_the_second(self: Path, other: Path) -> Path:
        if other == target:
            raise KeyboardInterrupt
        return replace(self, other)

    monkeypatch.setattr(Path, "replace", end_before_the_second)
    with pytest.raises(KeyboardInterrupt):
        writing._write_with_weights(target, write("new"))
    assert [path.name for path in tmp_path.iterdir()] == ["model.bin"]


@pytest.mark.usefixtures("in_process")
def test_bench_opens_no_file_of_a_stranger_that_may_have_code(
    digits: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = trained_model.load(digits.folder)
    noted = {"weights_sha256": stored.weights_sha256, "input_type": "float32", "tested": None}
    known = {}
    for form in ("pt2", "torchscript"):
        content = b"a pickle"
        (digits.folder / f"theirs.{form}").write_bytes(content)
        digest = {f"theirs.{form}": hashlib.sha256(content).hexdigest()}
        known[form] = noted | {"file": f"theirs.{form}", "sha256": digest}
    monkeypatch.setattr(record, "read", lambda _: known)
    monkeypatch.setattr(timing, "TIMED", ("torchscript", "pt2"))
    with tempfile.TemporaryDirectory() as folder:
        runs, rows = timing.open_formats(stored, Path(folder), "no run", 1)
    assert set(runs) == {"torch", "torchscript", "pt2"}
    assert all(row["bytes"] > 1000 for row in rows)


@pytest.mark.usefixtures("in_process")
def test_bench_has_times_of_each_format(
    digits: Run, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    export(capsys, digits.folder, "--format", "int8")
    words = ["bench", digits.folder, "--rounds", "2", "--batch", "3"]
    code, output, errors = run_command(capsys, *words, "--json")
    assert code == 0, errors
    found = json.loads(output)
    rows = {row["format"]: row for row in found["formats"]}
    assert set(rows) == {"torch", "onnx", "pt2", "openvino", "int8", "torchscript"}
    assert "not installed: openvino" in rows["openvino"]["left_out"]
    lost = digits.json("exports.json")["int8"]["tested"]["accuracy_lost"]
    assert rows["int8"]["accuracy_lost"] == lost
    for name in set(rows) - {"openvino"}:
        assert set(rows[name]["ms_per_image"]) == {"1", "3"}
        for one in rows[name]["ms_per_image"].values():
            assert 0 < one["low"] <= one["median"] <= one["high"]
    assert found["threads"] == 1


def test_bench_leaves_out_what_does_not_fit_into_memory(
    digits: Run, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    def open_small(form: str, *_: object) -> Callable[[torch.Tensor], torch.Tensor]:
        def run(pixels: torch.Tensor) -> torch.Tensor:
            if len(pixels) > 1:  # as ONNX Runtime's own kind of error
                raise Exception("Failed to allocate memory for requested buffer")
            return pixels

        return run

    monkeypatch.setattr(timing, "TIMED", ("onnx",))
    monkeypatch.setattr(writing, "write_graph", lambda *_: Path(_[2]).touch())
    monkeypatch.setattr(formats, "open_file", open_small)
    words = ["bench", digits.folder, "--rounds", "2", "--batch"]
    code, output, errors = run_command(capsys, *words, "3")
    assert (code, errors) == (0, "")
    assert "onnx: does not run on such a batch (Exception: Failed to allocate memory" in output
    assert re.search(r"^torch +\d", output, re.MULTILINE)
    monkeypatch.setattr(cgroups, "available_memory_bytes", lambda: 10**6)
    code, output, errors = run_command(capsys, *words, "60000")
    assert (code, output) == (2, "")
    assert re.match(r"--batch: 60,000 images need about [\d.]+ GB in this network", errors)


def test_a_damaged_record_is_named(digits: Run, tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "exports.json").write_text(json.dumps({"onnx": 3}))
    with pytest.raises(UserError, match=r"exports\.json"):
        record.read(tmp_path)
