"""`python -m trainer explain`: pictures of where an answer comes from."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.commands.command import Capture, run_command
from tests.data.archives import pack
from tests.stored import write_model
from trainer.commands.explain import GAP, METHODS


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(
        tmp_path_factory.mktemp("model") / "model.safetensors", image_size=(28, 28), channels=3
    )


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    pixels = np.random.default_rng(0).integers(0, 256, (90, 60, 3), dtype=np.uint8)
    path = tmp_path / "a photo.png"
    Image.fromarray(pixels).save(path)
    return path


@pytest.mark.parametrize("method", METHODS)
def test_a_picture_is_written_for_each_method(
    method: str, model: Path, picture: Path, tmp_path: Path, capsys: Capture
) -> None:
    words = ("--method", method, "--output", tmp_path / "out" / "deep", "--json")
    code, output, errors = run_command(capsys, "explain", model, picture, *words)
    assert (code, errors) == (0, "")
    (row,) = json.loads(output)["pictures"]
    assert row["class"] == row["explained"]
    assert Path(row["output"]) == tmp_path / "out" / "deep" / (
        f"a photo-{row['class']}-{method}.png"
    )
    with Image.open(row["output"]) as image:
        pixels = np.asarray(image).astype(int)
    side = (pixels.shape[1] - GAP) // 2
    assert pixels.shape == (196, 2 * 196 + GAP, 3)
    right = pixels[:, side + GAP :]
    spread = right.max(2) - right.min(2)
    assert spread.max() > 30, "something is coloured"
    against = right[..., 2] > right[..., 0] + 20
    assert against.any() == (method != "gradcam"), "Grad-CAM shows only what speaks for it"


def test_the_class_of_a_member_of_an_archive_is_that_of_predict(
    model: Path, picture: Path, tmp_path: Path, capsys: Capture
) -> None:
    (tmp_path / "in").mkdir()
    shutil.copy(picture, tmp_path / "in")
    archive = pack(tmp_path / "in", tmp_path / "own.zip")
    predicted = json.loads(run_command(capsys, "predict", model, archive, "--json")[1])
    words = ("explain", model, archive, "--output", tmp_path / "out", "--json")
    (found,) = json.loads(run_command(capsys, *words)[1])["pictures"]
    assert found["file"] == f"{archive}: {picture.name}"
    for key in ("file", "class", "probability"):
        assert found[key] == predicted[key]


def test_by_default_they_lie_next_to_the_model_and_none_replaces_another(
    model: Path, picture: Path, tmp_path: Path, capsys: Capture
) -> None:
    (tmp_path / "other").mkdir()
    same_name = tmp_path / "other" / picture.name
    same_name.write_bytes(picture.read_bytes())
    words = ("--class", "bee, or wasp")
    code, output, errors = run_command(capsys, "explain", model, picture, same_name, *words)
    assert (code, errors) == (0, "")
    folder = model.parent / "explanations"
    assert sorted(path.name for path in folder.iterdir()) == [
        "a photo-bee, or wasp-gradcam-2.png",
        "a photo-bee, or wasp-gradcam.png",
    ]
    assert all(str(path) in output for path in folder.iterdir())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--class", "bee"], "--class: the model has no class 'bee'"),
        (["--method", "guess"], "invalid choice: 'guess'"),
        (["--max_megapixels", "0"], "is not a whole number from 1"),
        (["--output", "PICTURE/x"], "--output: "),
    ],
)
def test_mistakes_are_named(
    words: list[str], message: str, model: Path, picture: Path, tmp_path: Path, capsys: Capture
) -> None:
    words = [word.replace("PICTURE", str(picture)) for word in words]
    before = sorted(tmp_path.rglob("*"))
    code, output, errors = run_command(capsys, "explain", model, picture, *words)
    assert (code, output) == (2, "")
    assert message in errors
    assert sorted(tmp_path.rglob("*")) == before


def test_what_is_no_picture_is_refused(model: Path, tmp_path: Path, capsys: Capture) -> None:
    """Before anything is written of the others; a pipe is not waited for."""
    broken, pipe, good = (tmp_path / name for name in ("broken.png", "pipe.png", "good.png"))
    broken.write_bytes(b"no picture")
    os.mkfifo(pipe)
    Image.new("RGB", (9, 9)).save(good)
    for path in (broken, pipe, tmp_path / "missing.png"):
        words = ("explain", model, good, path, "--output", tmp_path / "out")
        code, output, errors = run_command(capsys, *words)
        assert (code, output) == (2, "")
        assert str(path) in errors
    assert not (tmp_path / "out").exists()


def test_names_that_are_too_long_for_a_file_are_shortened(tmp_path: Path, capsys: Capture) -> None:
    names = ["蝶" * 200, "a/b", "🦋" * 90]
    file = write_model(
        tmp_path / "model.safetensors", change=lambda it: it.update(class_names=names)
    )
    picture = tmp_path / f"{'鳥' * 80}.png"
    Image.new("L", (9, 9)).save(picture)
    for name in names:
        words = ("explain", file, picture, "--class", name, "--json")
        code, output, errors = run_command(capsys, *words)
        assert (code, errors) == (0, "")
        (row,) = json.loads(output)["pictures"]
        assert row["explained"] == name
        assert Path(row["output"]).parent == tmp_path / "explanations"
        assert Path(row["output"]).is_file()
