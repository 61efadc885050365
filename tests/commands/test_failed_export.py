"""What `python -m trainer export` does not write, and how it says so.

Most tests export in this process: a worker takes seconds to start.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.commands.command import Capture, run_command
from tests.commands.test_export import in_process
from tests.stored import write_model

__all__ = ["in_process"]

WRONG = """
import torch
from torch import nn

class Drawing(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.linear = nn.Linear(144, num_classes)
    def forward(self, images):
        logits = self.linear(images.flatten(1))
        return logits + torch.rand_like(logits)

class Counting(Drawing):
    def forward(self, images):
        return self.linear(images.flatten(1)) * int(images.shape[0])

class Branching(Drawing):
    def forward(self, images):
        logits = self.linear(images.flatten(1))
        return logits if float(images.mean()) < 0 else logits * 2
"""


@pytest.mark.usefixtures("in_process")
@pytest.mark.parametrize(
    ("name", "form"),
    [
        ("Drawing", "onnx"),
        ("Drawing", "torchscript"),
        ("Counting", "torchscript"),
        ("Branching", "onnx"),
        ("Branching", "torchscript"),
    ],
)
def test_what_does_not_give_the_same_is_not_written(
    name: str, form: str, tmp_path: Path, capsys: Capture
) -> None:
    (tmp_path / "wrong.py").write_text(WRONG)
    model = f"{tmp_path / 'wrong.py'}:{name}"
    file = write_model(tmp_path / "model.safetensors", model)
    output = tmp_path / "exported"
    output.write_text("an earlier file")
    words = ["export", file, "--model", model, "--format", form, "--output", output]
    code, printed, errors = run_command(capsys, *words)
    assert (code, printed) == (2, "")
    assert "not written" in errors or "nothing is written" in errors
    assert len(errors.splitlines()) == 1
    assert output.read_text() == "an earlier file"
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == [
        "exported", "model.safetensors", "wrong.py",
    ]  # fmt: skip


@pytest.mark.usefixtures("in_process")
@pytest.mark.parametrize("package", ["onnx", "onnxruntime", "onnxscript"])
def test_a_missing_package_is_named(
    package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    file = write_model(tmp_path / "model.safetensors")
    code, output, errors = run_command(capsys, "export", file, "--format", "onnx")
    assert (code, output) == (2, "")
    assert f"--format onnx: {package} cannot be imported (import of {package} halted" in errors
    assert "lockstep-trainer[onnx]" in errors
    assert [path.name for path in tmp_path.iterdir()] == ["model.safetensors"]


CRASHING = """
import torch
from torch import nn

def is_recorded():
    return torch.compiler.is_exporting() or torch.jit.is_tracing()

class Renorm(nn.Conv2d):
    def forward(self, images):
        self.weight.data = torch.renorm(self.weight.data, 2, 0, 0.5)
        return super().forward(images)

class Crashing(nn.Sequential):
    def __init__(self, num_classes):
        super().__init__(Renorm(1, 4, 3), nn.Flatten(), nn.Linear(400, num_classes))

class Raising(nn.Sequential):
    def __init__(self, num_classes):
        super().__init__(nn.Flatten(), nn.Linear(144, num_classes))
    def forward(self, images):
        print("not for the screen")
        if is_recorded(): raise KeyError("no such plan")
        return super().forward(images)

class Branching(Raising):
    def forward(self, images):
        logits = nn.Sequential.forward(self, images)
        return logits if float(images.mean()) < 0 else logits * 2
"""


@pytest.mark.parametrize(
    ("name", "form", "expected"),
    [
        ("Crashing", "onnx", "crashed on this network (signal 11, SIGSEGV)"),
        ("Raising", "torchscript", "KeyError: 'no such plan'; crashing.py, line LINE"),
        ("Branching", "onnx", "Could not guard on data-dependent expression"),
    ],
)
def test_what_ended_the_exporter_is_said(
    name: str,
    form: str,
    expected: str,
    tmp_path: Path,
    capfd: Capture,
    request: pytest.FixtureRequest,
) -> None:
    if name == "Branching":
        request.getfixturevalue("in_process")
    (tmp_path / "crashing.py").write_text(CRASHING)
    model = f"{tmp_path / 'crashing.py'}:{name}"
    file = write_model(tmp_path / "model.safetensors", model)
    before = sorted(tmp_path.iterdir())
    capfd.readouterr()
    words = ["export", file, "--model", model, "--format", form]
    code, _, errors = run_command(capfd, *words)
    assert code == 2
    line = next(n for n, text in enumerate(CRASHING.splitlines(), 1) if "no such plan" in text)
    assert expected.replace("LINE", str(line)) in errors
    assert errors.count("\n") == 1
    assert errors.endswith("nothing is written\n")
    assert "\x1b" not in errors
    assert "Next steps" not in errors
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    ("end", "expected"),
    [
        ("kill -9 $$", "was killed (SIGKILL), as happens where memory runs out"),
        ("exit 7", "ended with exit code 7: the last line"),
    ],
)
def test_how_its_process_ended_is_said(
    end: str, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Capture
) -> None:
    """A shell is in the place of Python, which takes seconds to start."""
    file, python = write_model(tmp_path / "model.safetensors"), tmp_path / "python"
    python.write_text(f"#!/bin/sh\necho not for the screen\necho the last line >&2\n{end}\n")
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    capfd.readouterr()
    code, output, errors = run_command(capfd, "export", file, "--format", "torchscript")
    assert (code, output) == (2, "")
    assert f"the process of the exporter {expected}" in errors
    assert errors.count("\n") == 1
    assert errors.endswith("nothing is written\n")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.safetensors", "python"]


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--format", "safetensors"], "--output: name the file"),
        (["--format", "safetensors", "--output", "model.safetensors"], "is the run's own file"),
        (
            ["--format", "torchscript", "--input", "uint8"],
            "--input: is not for --format torchscript",
        ),
        (["--format", "torchscript", "--with-preprocessing"], "found torchscript"),
        (["--format", "int8"], "--format int8: needs the run's validation images"),
        (["--format", "onnx", "--output", "no/folder/x.onnx"], "--output: no/folder/x.onnx"),
        (["--format", "onnx", "--output", "."], "--output: . must be a file"),
        (["--format", "keras"], "invalid choice"),
    ],
)
def test_bad_input_is_one_message(
    words: list[str], named: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.chdir(tmp_path)
    file = write_model(tmp_path / "model.safetensors")
    before = file.read_bytes()
    code, output, errors = run_command(capsys, "export", file, *words)
    assert (code, output) == (2, "")
    assert named in errors
    assert file.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["model.safetensors"]
