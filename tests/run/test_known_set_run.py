"""Runs on published sets in colour, from small files in their formats, and what becomes of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.commands.command import Capture, run_command
from tests.data import known_files
from tests.data.known_files import published_here
from tests.runs import Run, train_here
from trainer.config import stored_config
from trainer.data.loading import load
from trainer.data.sources.known_sets.registry import KNOWN


@pytest.mark.parametrize(
    ("name", "write", "keys"),
    [
        ("cifar10", known_files.write_cifar10, ["--data.scaling", "per_channel"]),
        ("imagenette_160", known_files.write_imagenette, ["--data.image_size", "[32, 32]"]),
    ],
)
def test_a_run_in_colour_is_evaluated_and_predicts(
    name: str,
    write: Callable[[Path], None],
    keys: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Capture,
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    root = tmp_path / "files"
    root.mkdir()
    write(root)
    monkeypatch.setitem(KNOWN, name, published_here(KNOWN[name], root))
    words = ["--data.name", name, "--data.root", str(root), "--train.epochs", "2", *keys]
    assert train_here(tmp_path / "run", *words, "--train.batch_size", "10") == 0
    run = Run(tmp_path / "run", 0)
    code, output, errors = run_command(capsys, "evaluate", run.folder, "--json")
    assert code == 0, errors
    assert json.loads(output)["equals_results_json"] is True

    # A picture of a test image is classified as the image was.
    predictions = np.load(run.folder / "predictions.npz")
    data = load(stored_config.read_folder(run.folder).data, 0)
    pictures = [tmp_path / f"{number}.png" for number in range(4)]
    for path, pixels in zip(pictures, data.test.pictures(predictions["index"][:4]), strict=True):
        Image.fromarray(pixels).save(path)
    code, output, errors = run_command(capsys, "predict", run.folder, *pictures, "--json")
    assert code == 0, errors
    names = data.class_names
    classes = [names[number] for number in predictions["predicted"][:4]]
    assert [json.loads(line)["class"] for line in output.splitlines()] == classes
