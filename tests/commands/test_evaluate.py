"""`python -m trainer evaluate`: the figures of results.json again, and those of other images."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.commands.command import run_command
from tests.conftest import REPOSITORY
from tests.distributed.launch import environment
from tests.distributed.test_launchers import ACCELERATE
from tests.runs import Run, contents, train_here
from tests.stored import write_model
from trainer import load_model
from trainer.commands.evaluate import _by_our_numbers, _check_fit
from trainer.data.scaling import Scaling
from trainer.data.sets import Dataset, ImageSet
from trainer.errors import UserError

OWN_MODEL = f"{REPOSITORY}/examples/own_model.py:OwnModel"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("runs") / "run"
    more = ["--data.test_augment", "flip", "--data.test_size", "350"]
    assert train_here(folder, "--train.epochs", "3", *more) == 0
    return Run(folder, 0)


def evaluate(capsys: pytest.CaptureFixture[str], *words: str | Path) -> Any:
    code, output, errors = run_command(capsys, "evaluate", *words, "--json")
    assert code == 0, errors
    return json.loads(output)


def test_the_test_set_gives_the_figures_of_the_results(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = contents(run.folder)
    found = evaluate(capsys, run.folder, "--predictions", tmp_path / "again.npz")
    results = run.json("results.json")
    assert found["test"] == results["test"]
    assert found["equals_results_json"] is True
    assert found["weights_sha256"] == results["weights_sha256"]
    assert found["data"]["fingerprint"] == results["data"]["fingerprint"]
    again, stored = np.load(tmp_path / "again.npz"), np.load(run.folder / "predictions.npz")
    assert set(again) == set(stored)
    assert all(np.array_equal(again[name], stored[name]) for name in stored)
    assert contents(run.folder) == before


def test_two_processes_give_the_same_bits(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--module", "trainer", "evaluate", str(run.folder), "--split", "train", "--json"]
    done = subprocess.run(
        [*ACCELERATE, *words],
        cwd=REPOSITORY, env=environment(), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found.pop("processes") == 2
    alone = evaluate(capsys, run.folder, "--split", "train")
    assert alone.pop("processes") == 1
    assert found == alone


def test_the_validation_images_give_the_accuracy_by_which_the_weights_were_chosen(
    run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    found = evaluate(capsys, run.folder, "--split", "validation")
    stored = run.json("results.json")
    assert found["validation"]["accuracy"] == stored["validation"]["chosen_accuracy"]
    assert found["validation"]["samples"] == stored["data"]["validation"]
    assert found["equals_results_json"] is None


def test_people_get_a_table(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    code, output, errors = run_command(capsys, "evaluate", run.folder)
    assert (code, errors) == (0, "")
    accuracy = run.json("results.json")["test"]["accuracy"]
    assert f"test accuracy  {100 * accuracy:.2f} %" in output
    assert "the same as in results.json, to the last digit" in output
    assert "report" not in output


def test_other_images(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The run's own test images from .npy files, the first hundred of them."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    images, targets = digits.images[-350:], digits.target[-350:]
    for part in ("train", "test"):
        np.save(tmp_path / f"d_{part}_features.npy", (images / 16 * 255).astype(np.uint8))
        np.save(tmp_path / f"d_{part}_targets.npy", targets)
    found = evaluate(capsys, run.folder, "--data.name", "npy", "--data.root", str(tmp_path),
                     "--data.test_size", "100")  # fmt: skip
    assert found["test"]["samples"] == 100
    assert found["equals_results_json"] is None
    np.save(tmp_path / "d_test_features.npy", np.zeros((350, 9, 9), np.uint8))
    np.save(tmp_path / "d_train_features.npy", np.zeros((350, 9, 9), np.uint8))
    words = ["--data.name", "npy", "--data.root", str(tmp_path)]
    code, output, errors = run_command(capsys, "evaluate", run.folder, *words)
    assert (code, output) == (2, "")
    assert "(1, 9, 9), and the model takes (1, 8, 8)" in errors


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--train.epochs", "9"], "train.epochs: belongs to the run"),
        (["--data.nam", "npy"], "did you mean data.name"),
        (["--data.test_size", "100000"], "data.test_size"),
        (["--split", "validation", "--data.validation_size", "0"], "--split: validation has no"),
        (["--predictions", "x.txt"], "--predictions: x.txt"),
        (["--predictions", "no/folder/x.npz"], "--predictions: no/folder/x.npz"),
        (["--train.precision", "fp16"], "fp16 needs a GPU"),
    ],
)
def test_bad_input_is_one_message(
    run: Run, words: list[str], named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = contents(run.folder)
    code, output, errors = run_command(capsys, "evaluate", run.folder, *words)
    assert (code, output) == (2, "")
    assert named in errors
    assert len(errors.splitlines()) == 1
    assert contents(run.folder) == before


def test_what_is_no_finished_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(capsys, "evaluate", tmp_path)[0] == 2
    assert train_here(tmp_path / "run", "--train.max_seconds", "0.001") == 75
    code, _, errors = run_command(capsys, "evaluate", tmp_path / "run")
    assert code == 2
    assert "its run is stopped" in errors


def test_a_model_of_ones_own_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--model.name", OWN_MODEL, "--model.args", "{}", "--train.epochs", "2"]
    assert train_here(tmp_path / "run", *words) == 0
    code, output, errors = run_command(capsys, "evaluate", tmp_path / "run")
    assert (code, output) == (2, "")
    assert "runs only where you name it" in errors
    found = evaluate(capsys, tmp_path / "run", "--model", OWN_MODEL)
    assert found["equals_results_json"] is True


def test_other_figures_in_the_results_are_warned_of(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(run.folder, tmp_path / "run")
    results = run.json("results.json")
    results["test"]["loss"] += 1e-9
    (tmp_path / "run" / "results.json").write_text(json.dumps(results))
    found = evaluate(capsys, tmp_path / "run")
    assert found["equals_results_json"] is False


def dataset_of(names: tuple[str, ...]) -> Dataset:
    """One image of each class, all alike."""
    images = ImageSet(
        torch.zeros(len(names), 1, 12, 12, dtype=torch.uint8), torch.arange(len(names))
    )
    scaling = Scaling(torch.zeros(1, 1, 1), torch.ones(1, 1, 1))
    return Dataset("folder", names, images, images, images, scaling, "", "a folder")


def test_classes_are_matched_by_their_names(tmp_path: Path) -> None:
    """Folders of classes are numbered by their names: without one of them by others."""
    stored = load_model(write_model(tmp_path / "x.safetensors"))
    for names, numbers in [
        (("Käfer", "ant"), [2, 0]),
        (("0", "1", "2"), [0, 1, 2]),
        (stored.class_names, [0, 1, 2]),
    ]:
        dataset = dataset_of(names)
        _check_fit(dataset, stored)
        assert _by_our_numbers(dataset.test, dataset, stored).targets.tolist() == numbers
    for names, named in [(("ant", "wasp"), "the class 'wasp'"), (tuple("0123"), "has 4 classes")]:
        with pytest.raises(UserError, match=named):
            _check_fit(dataset_of(names), stored)
