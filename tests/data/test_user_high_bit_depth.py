"""Training on pictures of more than eight bits and using the model follow one rule."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.commands.command import Capture, run_command
from tests.conftest import REPOSITORY
from tests.data.picture_bytes import tiff
from tests.data.picture_folders import write_digits
from tests.runs import Run, train_here
from trainer.base.tensor_files import write_tensors
from trainer.finished import trained_model
from trainer.finished.export import description

RECIPE = REPOSITORY / "configs" / "folder.yaml"
SHORT = ["--model.args", '{"widths": [16, 32]}', "--train.epochs", "6", "--data.augment", "none"]


def deepen(root: Path) -> Path:
    """Make the pictures signed numbers, as of a CT: from -1,000 to 2,600."""
    for path in sorted(root.rglob("*.png")):
        values = np.asarray(Image.open(path)).astype(np.int16) * 15 - 1000
        path.unlink()
        path.with_suffix(".tif").write_bytes(tiff(values))
    return root


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    place = tmp_path_factory.mktemp("deep")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(place / "cache"))
        root = deepen(write_digits(place / "own", train=400, test=100))
        more = ["--data.root", str(root), *SHORT]
        assert train_here(place / "run", *more, config=RECIPE) == 0
    return Run(place / "run", 0)


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def test_the_range_is_kept_with_the_model(run: Run) -> None:
    assert run.json("results.json")["test"]["accuracy"] > 0.6
    assert trained_model.load(run.folder).grey_range == (-1000.0, 2600.0)


def test_evaluate_and_predict_use_the_range_of_the_model(
    run: Run, tmp_path: Path, capsys: Capture
) -> None:
    # Pictures whose values have a narrower range.
    other = write_digits(tmp_path / "other", train=400, test=100)
    for path in (other / "train").rglob("*.png"):
        Image.fromarray(np.asarray(Image.open(path)) // 2).save(path)
    deepen(other)
    code, output, errors = run_command(
        capsys, "evaluate", run.folder, "--data.root", other, "--json"
    )
    assert code == 0, errors
    assert json.loads(output)["test"] == run.json("results.json")["test"]
    files = sorted(path for path in (other / "test").rglob("*.tif"))
    code, output, errors = run_command(capsys, "predict", run.folder, *files, "--json")
    assert code == 0, errors
    rows = [json.loads(line) for line in output.splitlines()]
    right = sum(row["class"] == Path(row["file"]).parent.name for row in rows)
    assert right == round(run.json("results.json")["test"]["accuracy"] * 100)


def test_a_model_without_a_range_refuses_them_by_name(
    run: Run, tmp_path: Path, capsys: Capture, caplog: pytest.LogCaptureFixture
) -> None:
    plain = trained_model.load(run.folder)
    metadata = json.loads(plain.metadata)
    del metadata["grey_range"]
    (tmp_path / "run").mkdir()
    file = tmp_path / "run" / "model.safetensors"
    write_tensors(file, plain.module.state_dict(), {"model": json.dumps(metadata)})
    picture = tmp_path / "ct.tif"
    picture.write_bytes(tiff(np.arange(64, dtype=np.int16).reshape(8, 8)))
    code, output, errors = run_command(capsys, "predict", file, picture)
    assert (code, output) == (2, "")
    assert "ct.tif: is not a picture that can be read (it has values from 0 to 63" in errors
    assert "Traceback" not in errors
    white = tmp_path / "white.png"
    Image.new("L", (8, 8), 255).save(white)
    code, output, errors = run_command(capsys, "predict", file, picture, white, "--on_bad", "skip")
    assert code == 0
    assert "ct.tif" in caplog.text
    assert "white.png" in output


def test_an_export_has_the_range(run: Run, tmp_path: Path) -> None:
    found = description.describe(trained_model.load(run.folder), description.Order("torchscript"))
    assert found["grey_range"] == [-1000.0, 2600.0]
