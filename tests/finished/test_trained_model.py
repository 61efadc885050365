"""Load a trained model from its file only, and files that somebody made to do harm."""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests.conftest import REPOSITORY
from tests.distributed.launch import run_forked
from tests.runs import Run, train_here
from tests.stored import write_model
from trainer import load_model
from trainer.base.errors import UserError

OWN_MODEL = f"{REPOSITORY}/examples/own_model.py:OwnModel"


def test_three_lines_of_python(tmp_path: Path) -> None:
    """As docs/using_the_model.md has them, with a picture of another size."""
    assert train_here(tmp_path / "run", "--train.epochs", "2") == 0
    Image.new("RGB", (40, 30), "black").save(tmp_path / "black.png")
    page = (REPOSITORY / "docs" / "using_the_model.md").read_text(encoding="utf-8")
    lines = page.split("```python\n")[1].split("```")[0]
    assert len([line for line in lines.splitlines() if line]) == 3
    lines = lines.replace("runs/fashion_mnist", str(tmp_path / "run"))
    lines = lines.replace("boot.png", str(tmp_path / "black.png"))
    done = run_forked(1, tmp_path, "-c", lines)
    assert done.stdout.startswith("{'0': ")
    model = load_model(tmp_path / "run")
    results = Run(tmp_path / "run", 0).json("results.json")
    assert model.weights_sha256 == results["weights_sha256"]
    assert (model.class_names, model.channels, model.image_size) == (tuple("0123456789"), 1, (8, 8))
    probabilities = model.probabilities(torch.zeros(2, 1, 8, 8, dtype=torch.uint8))
    assert probabilities.sum(1).tolist() == pytest.approx([1, 1])
    assert not model.module.training


def test_importing_the_package_is_light() -> None:
    words = "import sys, trainer; print('torch' in sys.modules, 'numpy' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", words], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["False", "False"]


def test_the_file_is_enough_and_loading_draws_no_numbers(tmp_path: Path) -> None:
    file = write_model(tmp_path / "anything.safetensors", "quicknet", {"widths": [4, 6, 8]})
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    model = load_model(file)
    assert torch.equal(torch.rand(3), expected)
    pixels = torch.arange(144.0).view(1, 1, 12, 12)
    with torch.no_grad():
        logits = model.module((pixels - 73.0) / 90.0)
    assert model.probabilities(pixels) == pytest.approx(logits.softmax(1).numpy(), abs=1e-6)
    (tmp_path / "link").symlink_to(file)
    assert load_model(tmp_path / "link").weights_sha256 == model.weights_sha256


def test_a_picture_is_resized_as_in_the_run(tmp_path: Path) -> None:
    black, white = Image.new("L", (24, 12)), Image.new("L", (12, 12), "white")
    black.paste(white, (6, 0))
    black.save(tmp_path / "wide.png")
    wide = tmp_path / "wide.png"
    older = load_model(write_model(tmp_path / "older.safetensors"))
    assert older.resize == "stretch"
    assert older.read(wide)[0, 6, [0, 5, 11]].tolist() == [0, 255, 0]
    for rule, expected in (("crop", [255, 255, 255]), ("pad", [0, 255, 0])):
        file = write_model(tmp_path / "a.safetensors", change=lambda m, r=rule: m.update(resize=r))
        assert load_model(file).read(wide)[0, 6, [0, 5, 11]].tolist() == expected
    assert load_model(file).read(wide)[0, [0, 11]].max() == 0
    file = write_model(tmp_path / "a.safetensors", change=lambda m: m.update(resize="squash"))
    with pytest.raises(UserError, match=r"model\.resize"):
        load_model(file)


def test_somebody_elses_code_runs_only_where_it_is_named(tmp_path: Path) -> None:
    code = tmp_path / "theirs.py"
    code.write_text((REPOSITORY / "examples" / "own_model.py").read_text())
    file = write_model(tmp_path / "x.safetensors", f"{code}:OwnModel", {"filters": 5})
    code.write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    with pytest.raises(UserError, match=r"runs only where you name it: --model path/to/file.py"):
        load_model(file)
    assert not (tmp_path / "ran").exists()
    assert load_model(file, OWN_MODEL).module.head.in_features == 10
    with pytest.raises(UserError, match="lab_cnn has no argument 'filters'"):
        load_model(file, "lab_cnn")


def test_names_of_timm_are_somebody_elses_code_too(tmp_path: Path) -> None:
    """timm:hf-hub:... would download."""
    file = write_model(
        tmp_path / "x.safetensors", change=lambda metadata: metadata.update(name="timm:resnet18")
    )
    with pytest.raises(UserError, match="runs only where you name it"):
        load_model(file)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"name": 5}, "model.name"),
        ({"args": []}, "model.args"),
        ({"args": {"no_such": 1}}, "no argument 'no_such'"),
        ({"num_classes": 4}, "model.num_classes"),
        ({"num_classes": 2, "class_names": ["a", "b"]}, "does not fit the model"),
        ({"class_names": ["a", "a", "b"]}, "model.class_names"),
        ({"class_names": ["a", 1, "b"]}, "model.class_names"),
        ({"image_size": [12]}, "model.image_size"),
        ({"image_size": [10**9, 10**9]}, "model.image_size"),
        ({"image_size": [4000, 4000]}, "does not fit the model"),
        ({"evaluation_batch_size": 0}, "model.evaluation_batch_size"),
        ({"evaluation_batch_size": 10**9}, "model.evaluation_batch_size"),
        ({"in_channels": 0}, "model.in_channels"),
        ({"in_channels": True}, "model.in_channels"),
        ({"mean": [[[1.0]], [[1.0, 2.0]]]}, "model.mean"),
        ({"mean": [[["x"]]]}, "model.mean"),
        ({"mean": [1.0]}, "model.mean"),
        ({"mean": [[[1e300]]]}, "model.mean"),
        ({"deviation": [[[0.0]]]}, "model.deviation"),
        ({"grey_range": [2.0, 1.0]}, "model.grey_range"),
        ({"grey_range": ["black", "white"]}, "model.grey_range"),
        ({"deviation": [[[-1.0]]]}, "model.deviation"),
    ],
)
def test_impossible_metadata_are_named(tmp_path: Path, change: dict[str, Any], named: str) -> None:
    file = write_model(tmp_path / "x.safetensors", change=lambda metadata: metadata.update(change))
    with pytest.raises(UserError) as caught:
        load_model(file)
    assert str(file) in str(caught.value)
    assert named in str(caught.value)


@pytest.mark.parametrize("width", [50_000, 10**12])
def test_a_network_of_another_size_costs_no_memory(tmp_path: Path, width: int) -> None:
    """One of such widths would have 90 GB of weights and more."""
    file = write_model(
        tmp_path / "x.safetensors",
        "quicknet",
        {"widths": [4, 4]},
        change=lambda metadata: metadata.update(args={"widths": [width, width]}),
    )
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(UserError, match=r"does not fit the model|numbers of at most 100,000"):
        load_model(file)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # KB


def test_what_is_not_a_finished_run(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no such run"):
        load_model(tmp_path / "nothing")
    with pytest.raises(UserError, match=r"not a run, there is no model\.safetensors"):
        load_model(tmp_path)
    assert train_here(tmp_path / "run", "--train.max_seconds", "0.001") == 75
    with pytest.raises(UserError, match=r"its run is stopped at step \d+; let it come to its end"):
        load_model(tmp_path / "run")
    (tmp_path / "text.safetensors").write_text("nothing of the kind")
    with pytest.raises(UserError, match="not a valid safetensors file"):
        load_model(tmp_path / "text.safetensors")


def test_a_file_without_metadata_says_so(tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    save_file({"x": np.zeros(3, np.float32)}, tmp_path / "x.safetensors")
    with pytest.raises(UserError, match="does not describe its model"):
        load_model(tmp_path / "x.safetensors")
