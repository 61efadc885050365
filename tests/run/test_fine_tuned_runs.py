"""Runs that start from weights: their file is part of the configuration, by its SHA-256."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

import models
from tests.commands.command import Capture, run_command
from tests.runs import DIGITS, Run, check_same, contents, train_forked, train_here, words
from trainer.config import stored_config

SHORT = ["--train.epochs", "2", "--data.train_size", "300", "--train.microbatches", "2"]
SHORT += ["--schedule.name", "constant"]


def write_weights(path: Path, seed: int = 0) -> None:
    """Weights of the recipe's network, made for colour images of twenty classes."""
    recipe = yaml.safe_load(DIGITS.read_text())["model"]
    torch.manual_seed(seed)
    net = models.create(
        recipe["name"], recipe["args"], num_classes=20, in_channels=3, image_size=(8, 8)
    )
    save_file({f"module.{name}": value for name, value in net.state_dict().items()}, path)


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run that began with a file, named from the folder in which it was started."""
    folder = tmp_path_factory.mktemp("runs")
    write_weights(folder / "w.safetensors")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert train_here(folder / "run", *SHORT, "--model.weights", "w.safetensors") == 0
    return Run(folder / "run", 0)


@pytest.fixture
def copy(tuned: Run, tmp_path: Path) -> Path:
    """The run and its weights in a folder where they may be changed."""
    shutil.copytree(tuned.folder, tmp_path / "run")
    shutil.copy(tuned.folder.parent / "w.safetensors", tmp_path)
    return tmp_path


def test_the_file_belongs_to_the_configuration(tuned: Run) -> None:
    file = tuned.folder.parent / "w.safetensors"
    config = stored_config.read_folder(tuned.folder)
    assert config.model.weights == str(file)
    assert config.model.weights_sha256 == sha256(file)
    expected = {"source": str(file), "sha256": sha256(file)}
    assert tuned.json("results.json")["model"]["weights"] == expected


def test_two_processes_begin_with_the_same_and_say_what_is_new(tuned: Run, tmp_path: Path) -> None:
    given = str(tuned.folder.parent / "w.safetensors")
    run = train_forked(tmp_path / "run", 2, *SHORT, "--model.weights", given)
    check_same(run, tuned)
    for note in ("head: 20 -> 10 classes, new", "3 -> 1 channels, summed", "prefix 'module.'"):
        assert run.output.count(note) == 1


def test_it_is_verified_and_compared_like_any_other(copy: Path, capsys: Capture) -> None:
    code, output, errors = run_command(capsys, "verify", copy / "run")
    assert code == 0, (output, errors)
    (copy / "moved").mkdir()
    shutil.move(copy / "w.safetensors", copy / "moved" / "w.safetensors")
    config = (copy / "run" / "config.yaml").read_text()
    (copy / "run" / "config.yaml").write_text(config.replace("/w.safetensors", "/gone"))
    code, _, errors = run_command(capsys, "verify", copy / "run")
    assert code == 2
    assert "gone: No such file" in errors
    moved = copy / "moved" / "w.safetensors"
    assert run_command(capsys, "verify", copy / "run", "--model.weights", moved)[0] == 0


@pytest.mark.parametrize("command", ["verify", "replay", "resume", "again"])
def test_a_changed_file_is_refused(command: str, copy: Path, capsys: Capture) -> None:
    write_weights(copy / "w.safetensors", seed=1)
    config = (copy / "run" / "config.yaml").read_text()
    ours = config.replace(str(stored_config.read_folder(copy / "run").model.weights), "FILE")
    (copy / "run" / "config.yaml").write_text(ours.replace("FILE", str(copy / "w.safetensors")))
    before = contents(copy / "run")
    if command in ("verify", "replay"):
        more = ["--step", "1"] * (command == "replay")
        code, _, errors = run_command(capsys, command, copy / "run", *more)
    else:
        folder = copy / ("run" if command == "resume" else "other")
        more = ["--model.weights", str(copy / "w.safetensors"), "--train.epochs", "3"]
        more += ["--model.weights_sha256", "0" * 64] * (command == "again")
        code = train_here(folder, *SHORT, *more)
        errors = capsys.readouterr().err
    assert code == 2
    assert "model.weights: " in errors
    assert sha256(copy / "w.safetensors") in errors
    assert contents(copy / "run") == before


def test_it_goes_on_without_the_file_from_a_checkpoint(
    copy: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, capsys: Capture
) -> None:
    longer = [*SHORT, "--train.epochs", "3", "--model.weights", str(copy / "w.safetensors")]
    assert train_here(tmp_path / "whole", *longer) == 0
    assert train_here(copy / "run", *longer) == 0  # from another place than before
    assert Run(copy / "run", 0).digest == Run(tmp_path / "whole", 0).digest
    (copy / "w.safetensors").unlink()
    longer += ["--train.epochs", "4"]
    assert train_here(copy / "run", *longer) == 0
    assert "goes on from its checkpoint, which has all weights" in caplog.text
    shutil.rmtree(copy / "run" / "checkpoints")
    assert train_here(copy / "run", *longer, "--train.epochs", "5") == 2
    assert "w.safetensors: No such file" in capsys.readouterr().err
    assert run_command(capsys, "evaluate", copy / "run")[0] == 0


def test_a_run_is_weights_to_start_from(tuned: Run, tmp_path: Path, capsys: Capture) -> None:
    """Its folder or its file, with the classes that both have."""
    for name, given in (("a", tuned.folder), ("b", tuned.folder / "model.safetensors")):
        more = ["--model.weights", str(given), "--train.epochs", "1"]
        assert train_here(tmp_path / name, *SHORT, *more) == 0
    one, two = Run(tmp_path / "a", 0), Run(tmp_path / "b", 0)
    assert one.digest == two.digest
    assert "head: " not in capsys.readouterr().out
    assert run_command(capsys, "compare", one.folder, two.folder)[0] == 0
    for command in ("verify", "replay"):
        more = ["--step", "2"] * (command == "replay")
        code, _, errors = run_command(capsys, command, one.folder, *more)
        assert code == 0, errors
    started = load_file(tuned.folder / "model.safetensors").keys()
    assert load_file(one.folder / "model.safetensors").keys() == started


def test_each_fold_and_a_range_test_begin_with_the_weights(
    tuned: Run, tmp_path: Path, capsys: Capture
) -> None:
    """What they train at first is what a run with these weights does."""
    given = [*SHORT, "--train.epochs", "1", "--schedule.warmup_epochs", "0"]
    given += ["--model.weights", str(tuned.folder.parent / "w.safetensors")]
    code, output, errors = run_command(
        capsys, "crossval", *words(tmp_path / "folds", *given), "--folds", "2"
    )
    assert code == 0, errors
    assert output.count("head: 20 -> 10 classes, new") == 2
    for number in (1, 2):
        results = Run(tmp_path / "folds" / f"fold-{number}", 0).json("results.json")
        assert results["model"]["weights"] == tuned.json("results.json")["model"]["weights"]
    rate = ["--lowest", "0.0099999", "--highest", "0.01", "--steps", "20", "--json"]
    code, output, errors = run_command(capsys, "lr-find", *words(tmp_path / "range", *given), *rate)
    assert code == 0, errors
    assert json.loads(output)["loss"][0] == tuned.metrics("step")[0]["loss"]
