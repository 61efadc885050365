"""A run that starts from ImageNet's weights as a package brings them, with their images."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from tests.commands.command import Capture, run_command
from tests.conftest import REPOSITORY
from tests.runs import Run, train_here, words
from trainer.base.tensor_files import read_metadata
from trainer.finished import trained_model
from trainer.network.packaged_weights import PACKAGES

RECIPE = REPOSITORY / "configs" / "finetune.yaml"
SHORT = ["--train.epochs", "2", "--train.batch_size", "8", "--schedule.warmup_epochs", "0"]
# Accelerate keeps one precision for a process, and other tests share this one.
SHORT += ["--train.precision", "fp32"]


def write_pictures(root: Path) -> None:
    """Write colourful pictures that are wider than high, of two classes."""
    random = np.random.default_rng(0)
    for part, count in (("train", 12), ("validation", 2), ("test", 4)):
        for name, level in (("dark", 60), ("bright", 160)):
            (root / part / name).mkdir(parents=True)
            for number in range(count):
                pixels = random.integers(level, level + 90, (40, 60 + number, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(root / part / name / f"{number:02}.png")


@pytest.fixture(scope="module")
def fine_tuned(tmp_path_factory: pytest.TempPathFactory) -> Run:
    root = tmp_path_factory.mktemp("pictures")
    write_pictures(root / "own")
    more = ["--data.root", str(root / "own"), "--data.image_size", "32", *SHORT]
    assert train_here(root / "run", *more, config=RECIPE) == 0
    return Run(root / "run", 0)


def config_of(run: Run) -> Any:
    return yaml.safe_load((run.folder / "config.yaml").read_text())


def test_the_recipe_pins_the_weights_and_what_they_want(fine_tuned: Run) -> None:
    config = config_of(fine_tuned)
    package = PACKAGES["efficientnet_lite0"]
    assert config["model"]["weights_sha256"] == package.sha256
    data = config["data"]
    assert (data["scaling"], data["channels"], data["image_size"]) == ("pretrained", 3, [32, 32])
    assert data["mean"] == [127 / 255] * 3 and data["deviation"] == [128 / 255] * 3
    assert isinstance(data["crop_share"], float) and isinstance(data["interpolation"], str)
    found = json.loads(read_metadata(fine_tuned.folder / "model.safetensors")["model"])
    assert np.ravel(found["mean"]).tolist() == [127.0] * 3
    assert np.ravel(found["deviation"]).tolist() == [128.0] * 3
    assert fine_tuned.json("results.json")["model"]["weights"]["sha256"] == package.sha256


def test_pictures_are_cut_alike_in_the_run_and_in_the_finished_model(fine_tuned: Run) -> None:
    """`evaluate` reads through the data, `load_model` picture by picture."""
    with np.load(fine_tuned.folder / "predictions.npz") as stored:
        expected = np.sort(stored["probability"])
    model = trained_model.load(fine_tuned.folder)
    root = Path(config_of(fine_tuned)["data"]["root"])
    pictures = sorted((root / "test").rglob("*.png"))
    found = np.sort([max(model.classify(picture).values()) for picture in pictures])
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert (model.crop_share, model.interpolation) == (
        config_of(fine_tuned)["data"]["crop_share"],
        config_of(fine_tuned)["data"]["interpolation"],
    )


def test_the_same_command_has_nothing_left_to_do(fine_tuned: Run, capsys: Capture) -> None:
    root = config_of(fine_tuned)["data"]["root"]
    more = ["--data.root", root, "--data.image_size", "32", *SHORT]
    assert train_here(fine_tuned.folder, *more, config=RECIPE) == 0
    assert "nothing is left to do" in capsys.readouterr().out


def test_it_is_computed_again_and_the_recipe_has_a_range_test(
    fine_tuned: Run, tmp_path: Path, capsys: Capture
) -> None:
    code, _, errors = run_command(capsys, "verify", fine_tuned.folder)
    assert code == 0, errors
    root = config_of(fine_tuned)["data"]["root"]
    more = ["--data.root", root, "--data.image_size", "32", *SHORT, "--steps", "20", "--json"]
    code, output, errors = run_command(
        capsys, "lr-find", *words(tmp_path / "run", *more, config=RECIPE)
    )
    assert code == 0, errors
    found = json.loads(output)
    assert found["loss"][0] == fine_tuned.metrics("step")[0]["loss"]


def test_weights_of_a_run_bring_their_images_too(fine_tuned: Run, tmp_path: Path) -> None:
    root = config_of(fine_tuned)["data"]["root"]
    more = ["--data.root", root, "--data.image_size", "null", *SHORT]
    more += ["--model.weights", str(fine_tuned.folder)]
    assert train_here(tmp_path / "run", *more, config=RECIPE) == 0
    theirs, ours = (config_of(run)["data"] for run in (fine_tuned, Run(tmp_path / "run", 0)))
    for key in ("image_size", "channels", "crop_share", "interpolation", "scaling"):
        assert ours[key] == theirs[key], key
    np.testing.assert_allclose(ours["mean"], theirs["mean"], rtol=1e-6)


def test_a_changed_file_of_the_package_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    package = PACKAGES["efficientnet_lite0"]
    (tmp_path / package.folder / "models").mkdir(parents=True)
    (tmp_path / package.folder / "__init__.py").touch()
    (tmp_path / package.folder / package.file).write_bytes(b"something else")
    monkeypatch.syspath_prepend(tmp_path)
    write_pictures(tmp_path / "own")
    more = ["--data.root", str(tmp_path / "own"), *SHORT]
    assert train_here(tmp_path / "run", *more, config=RECIPE) == 2
    errors = capsys.readouterr().err
    assert f"and that of {package.name} is {package.sha256}; install it again" in errors


def test_a_network_without_such_weights_is_refused(tmp_path: Path, capsys: Capture) -> None:
    more = ["--model.name", "quicknet", "--model.weights", "pretrained"]
    assert train_here(tmp_path / "run", *more) == 2
    assert "not of quicknet; give a file, the folder of a run" in capsys.readouterr().err
