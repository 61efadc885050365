"""`python -m trainer export`: every family in every format, checked.

Most tests export in this process: a worker takes seconds to start.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from PIL import Image

from tests.commands.command import Capture, run_command
from tests.conftest import REPOSITORY
from tests.nets import catalog
from tests.stored import write_model
from trainer import load_model
from trainer.finished.export import worker

FAMILIES: list[tuple[str, dict[str, Any]]] = [
    ("airbench", {"widths": [4, 8], "residual": True}),
    ("alexnet_small", {}),
    ("lab_cnn", {}),
    ("lenet5", {}),
    ("preact_resnet", {"depth": 8, "width": 4, "drop_path": 0.2, "squeeze_excitation": True}),
    ("quicknet", {"widths": [4, 6, 8], "dropout": 0.1}),
    ("resnet_d", {"widths": [4, 8], "blocks": [1, 1], "squeeze_excitation": True}),
    ("vgg_small", {}),
    ("wide_resnet", {"depth": 10, "widen_factor": 1, "dropout": 0.3}),
    (f"{REPOSITORY}/examples/own_model.py:OwnModel", {"filters": 4}),
]
IDS = [Path(name).stem for name, _ in FAMILIES]


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Do the work of the worker here."""

    def run_worker(task: dict[str, Any]) -> dict[str, Any]:
        return worker.write_and_check(json.loads(json.dumps(task)))

    monkeypatch.setattr("trainer.finished.export.writing._run_worker", run_worker)


def export(capsys: Capture, *words: str | Path) -> Any:
    code, output, errors = run_command(capsys, "export", *words, "--json")
    assert code == 0, errors
    return json.loads(output)


def pixels_of(count: int, channels: int = 1) -> np.ndarray:
    generator = np.random.Generator(np.random.Philox(0))
    return generator.integers(0, 256, (count, channels, 12, 12), dtype=np.uint8)


def logits_of(file: Path, name: str, pixels: np.ndarray) -> np.ndarray:
    """By hand: what the network makes of scaled pixels."""
    module = load_model(file, name).module
    with torch.no_grad():
        return module((torch.from_numpy(pixels).float() - 73.0) / 90.0).numpy()


@pytest.mark.usefixtures("in_process")
def test_weights_of_a_network_that_draws(tmp_path: Path, capsys: Capture) -> None:
    name = catalog.plugin("DropsInEvaluation")
    file, copy = write_model(tmp_path / "model.safetensors", name), tmp_path / "copy.safetensors"
    export(capsys, file, "--format", "safetensors", "--model", name, "--output", copy)
    assert copy.read_bytes() == file.read_bytes()
    words = ("--format", "onnx", "--model", name)
    code, _, errors = run_command(capsys, "export", file, *words)
    assert code == 2
    assert "does the network do other things with other batches, or draw numbers?" in errors
    assert not (tmp_path / "model.onnx").exists()


@pytest.mark.usefixtures("in_process")
@pytest.mark.parametrize(("name", "arguments"), FAMILIES, ids=IDS)
def test_every_family_in_every_format(
    name: str, arguments: dict[str, Any], tmp_path: Path, capsys: Capture
) -> None:
    file = write_model(tmp_path / "model.safetensors", name, arguments)
    found = export(capsys, file, "--format", "onnx", "--model", name)
    assert found["file"] == str(tmp_path / "model.onnx")
    assert found["checked"]["largest_difference"] <= found["checked"]["tolerance"] == 1e-4
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    (given,) = session.get_inputs()
    assert (given.name, given.type, given.shape) == (
        "pixels",
        "tensor(float)",
        ["batch", 1, 12, 12],
    )
    (gotten,) = session.get_outputs()
    assert (gotten.name, gotten.shape) == ("logits", ["batch", 3])
    export(capsys, file, "--format", "torchscript", "--model", name)
    script = torch.jit.load(tmp_path / "model.pt")
    for written in ("model.onnx", "model.pt"):
        assert str(REPOSITORY).encode() not in (tmp_path / written).read_bytes()
    export(capsys, file, "--format", "safetensors", "--model", name, "--output",
           tmp_path / "copy.safetensors")  # fmt: skip
    assert (tmp_path / "copy.safetensors").read_bytes() == file.read_bytes()
    for count in (1, 4):
        pixels = pixels_of(count)
        expected = logits_of(file, name, pixels)
        (by_onnx,) = session.run(None, {"pixels": pixels.astype(np.float32)})
        assert by_onnx == pytest.approx(expected, abs=1e-4)
        for kind in (torch.uint8, torch.float32):
            by_script = script(torch.from_numpy(pixels).to(kind))
            assert by_script.numpy() == pytest.approx(expected, abs=1e-4)


@pytest.mark.usefixtures("in_process")
def test_whole_numbers_in_colour_and_what_the_file_says_of_itself(
    tmp_path: Path, capsys: Capture
) -> None:
    file = write_model(tmp_path / "x.safetensors", channels=3)
    output = tmp_path / "x.onnx"
    export(capsys, file, "--format", "onnx", "--input", "uint8", "--output", output)
    session = onnxruntime.InferenceSession(output)
    assert session.get_inputs()[0].type == "tensor(uint8)"
    pixels = pixels_of(5, channels=3)
    (found,) = session.run(None, {"pixels": pixels})
    assert found == pytest.approx(logits_of(file, "lab_cnn", pixels), abs=1e-4)
    says = session.get_modelmeta().custom_metadata_map
    assert json.loads(says["class_names"]) == ["ant", "bee, or wasp", "Käfer"]
    assert says["arithmetic"] == "float32"
    assert says["weights_sha256"] == load_model(file).weights_sha256
    # Nothing says where on this machine the code lies.
    assert str(REPOSITORY).encode() not in output.read_bytes()
    assert [kept.version for kept in onnx.load(output).opset_import if kept.domain == ""] == [20]


def test_torchscript_says_what_it_is(tmp_path: Path, capsys: Capture) -> None:
    names = ["ant", "bee, or wasp", "ä" * 30_000]  # more than an argument of a process may have
    file = write_model(
        tmp_path / "model.safetensors", change=lambda found: found.update(class_names=names)
    )
    code, output, errors = run_command(capsys, "export", file, "--format", "torchscript")
    assert (code, errors) == (0, "")
    assert "pixels, float32 or uint8, batch x 1 x 12 x 12: 0 to 255" in output
    extra = {"lockstep.json": ""}
    torch.jit.load(tmp_path / "model.pt", _extra_files=extra)
    assert json.loads(extra["lockstep.json"])["class_names"] == names


@pytest.mark.usefixtures("in_process")
def test_the_lines_of_the_documentation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    file = write_model(tmp_path / "model.safetensors", image_size=(28, 28))
    export(capsys, file, "--format", "onnx", "--output", tmp_path / "shirts.onnx")
    Image.new("L", (90, 100), 200).save(tmp_path / "boot.png")
    page = (REPOSITORY / "docs" / "using_the_model.md").read_text(encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    found: dict[str, Any] = {}
    exec(page.split("```python\n")[2].split("```")[0], found)
    stored = load_model(file)
    expected = stored.probabilities(stored.read("boot.png")[None])
    assert torch.from_numpy(found["logits"]).softmax(1).numpy() == pytest.approx(
        expected.numpy(), abs=1e-5
    )
