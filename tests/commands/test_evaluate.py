"""`python -m trainer evaluate`: the figures of results.json again, and those of other images."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.commands.command import Capture, run_command
from tests.conftest import REPOSITORY
from tests.data.archives import pack
from tests.distributed.launch import run_forked
from tests.runs import Run, contents, train_here

OWN_MODEL = f"{REPOSITORY}/examples/own_model.py:OwnModel"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("runs") / "run"
    more = ["--data.test_augment", "flip", "--data.test_size", "350", "--data.train_size", "800"]
    assert train_here(folder, "--train.epochs", "3", *more) == 0
    return Run(folder, 0)


def evaluate(capsys: Capture, *words: str | Path) -> Any:
    code, output, errors = run_command(capsys, "evaluate", *words, "--json")
    assert code == 0, errors
    return json.loads(output)


def test_the_test_set_gives_the_figures_of_the_results(
    run: Run, tmp_path: Path, capsys: Capture
) -> None:
    before = contents(run.folder)
    found = evaluate(capsys, run.folder, "--predictions", tmp_path / "again.npz")
    results = run.json("results.json")
    assert found["test"] == results["test"]
    assert found["equals_results_json"] is True
    assert found["weights_sha256"] == results["weights_sha256"]
    assert found["own_images"] is True
    assert found["data"]["fingerprint"] == results["data"]["fingerprint"]
    assert found["data"]["test_fingerprint"] == results["data"]["test_fingerprint"]
    again, stored = np.load(tmp_path / "again.npz"), np.load(run.folder / "predictions.npz")
    assert set(again) == {name for name in stored if not name.startswith("validation_")}
    assert all(np.array_equal(again[name], stored[name]) for name in again)
    assert contents(run.folder) == before


def test_two_processes_give_the_same_bits(run: Run, tmp_path: Path, capsys: Capture) -> None:
    words = ["-m", "trainer", "evaluate", str(run.folder), "--split", "train", "--json"]
    done = run_forked(2, tmp_path, *words)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found.pop("processes") == 2
    single = evaluate(capsys, run.folder, "--split", "train")
    assert single.pop("processes") == 1
    assert found == single


def test_the_validation_images_give_the_accuracy_by_which_the_weights_were_chosen(
    run: Run, capsys: Capture
) -> None:
    found = evaluate(capsys, run.folder, "--split", "validation")
    stored = run.json("results.json")
    assert found["validation"]["accuracy"] == stored["validation"]["chosen_accuracy"]
    assert found["validation"]["samples"] == stored["data"]["validation"]
    assert found["equals_results_json"] is None


def test_the_table_for_people(run: Run, capsys: Capture) -> None:
    code, output, errors = run_command(capsys, "evaluate", run.folder)
    assert (code, errors) == (0, "")
    accuracy = run.json("results.json")["test"]["accuracy"]
    assert f"test accuracy  {100 * accuracy:.2f} %" in output
    assert "the same as in results.json, to the last digit" in output
    assert "report" not in output


def test_other_images(run: Run, tmp_path: Path, capsys: Capture) -> None:
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
    assert (found["own_images"], found["data"]["classes_by"]) == (False, "number")
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
def test_bad_input_is_one_message(run: Run, words: list[str], named: str, capsys: Capture) -> None:
    before = contents(run.folder)
    code, output, errors = run_command(capsys, "evaluate", run.folder, *words)
    assert (code, output) == (2, "")
    assert named in errors
    assert len(errors.splitlines()) == 1
    assert contents(run.folder) == before


def test_an_unfinished_run(tmp_path: Path, capsys: Capture) -> None:
    assert run_command(capsys, "evaluate", tmp_path)[0] == 2
    assert train_here(tmp_path / "run", "--train.max_seconds", "0.001") == 75
    code, _, errors = run_command(capsys, "evaluate", tmp_path / "run")
    assert code == 2
    assert "its run is stopped" in errors


def test_a_users_model_must_be_named(tmp_path: Path, capsys: Capture) -> None:
    words = ["--model.name", OWN_MODEL, "--model.args", "{}", "--data.train_size", "300"]
    assert train_here(tmp_path / "run", *words, "--train.epochs", "1") == 0
    code, output, errors = run_command(capsys, "evaluate", tmp_path / "run")
    assert (code, output) == (2, "")
    assert "runs only where you name it" in errors
    found = evaluate(capsys, tmp_path / "run", "--model", OWN_MODEL)
    assert found["equals_results_json"] is True


def test_other_figures_in_the_results_are_warned_of(
    run: Run, tmp_path: Path, capsys: Capture
) -> None:
    shutil.copytree(run.folder, tmp_path / "run")
    results = run.json("results.json")
    results["test"]["loss"] += 1e-9
    (tmp_path / "run" / "results.json").write_text(json.dumps(results))
    found = evaluate(capsys, tmp_path / "run")
    assert found["equals_results_json"] is False


def write_folders(
    root: Path, part: str, names: dict[int, str], turned_over: Sequence[str] = ()
) -> Path:
    """The run's 350 test images as PART/CLASS/NUMBER.png, of the classes that have a name here."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    for number, (image, label) in enumerate(
        zip(digits.images[-360:-10], digits.target[-360:-10], strict=True)
    ):
        if label in names:
            folder = root / part / names[label]
            folder.mkdir(parents=True, exist_ok=True)
            pixels = (image * 15).astype(np.uint8)
            pixels = 255 - pixels if names[label] in turned_over else pixels
            Image.fromarray(pixels).save(folder / f"{number:03}.png")
    return root


def of_folder(root: Path) -> list[str]:
    return ["--data.name", "folder", "--data.root", str(root), "--data.test_size", "null"]


def correct(found: dict[str, Any]) -> dict[str, tuple[int, int]]:
    return {row["name"]: (row["support"], row["correct"]) for row in found["test"]["per_class"]}


@pytest.mark.parametrize("parts", [("test",), ("",), ("train", "test")])
def test_folders_of_some_classes_are_matched_by_name(
    run: Run,
    parts: tuple[str, ...],
    tmp_path: Path,
    capsys: Capture,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """With only test/, with only the classes' folders, and with a train/ of other classes."""
    whole = correct(evaluate(capsys, run.folder))
    names = {label: str(label) for label in (1, 3, 7, 9)}
    for part in parts:
        chosen = names | {5: "five"} if part == "train" else names
        folder = write_folders(tmp_path / "own", part, chosen) / part / "1"
    (folder / "photo.svg").touch()
    found = evaluate(capsys, run.folder, *of_folder(tmp_path / "own"))
    for name, counts in correct(found).items():
        assert counts == (whole[name] if int(name) in names else (0, 0)), name
    assert found["data"]["classes_by"] == "name"
    assert found["own_images"] is False
    assert found["test"]["worst_class"] in names.values()
    assert re.search(r"left out, as they end in none of .*/?1/photo\.svg", caplog.text)


def test_a_class_that_the_model_does_not_know_is_refused(
    run: Run, tmp_path: Path, capsys: Capture
) -> None:
    for names in ({0: "cat", 1: "dog"}, {0: "00", 1: "1"}):
        root = write_folders(tmp_path / names[0], "test", names)
        code, output, errors = run_command(capsys, "evaluate", run.folder, *of_folder(root))
        assert (code, output) == (2, "")
        assert f"{names[0]!r}" in errors
        assert "does not know; it knows '0', '1'" in errors
        assert len(errors.splitlines()) == 1


def test_numbers_for_a_model_of_names_are_positions_with_a_warning(
    tmp_path: Path, capsys: Capture, caplog: pytest.LogCaptureFixture
) -> None:
    root = tmp_path / "own"
    for part in ("train", "test"):
        write_folders(root, part, {0: "ant", 1: "bee", 2: "cat"})
    keys = ["--data.name", "folder", "--data.root", str(root), "--train.epochs", "1"]
    assert train_here(tmp_path / "run", *keys) == 0
    files = sorted((root / "test").rglob("*.png"))
    for part in ("train", "test"):
        pixels = []
        for file in files:
            with Image.open(file) as picture:
                pixels.append(np.asarray(picture))
        np.save(tmp_path / f"n_{part}_features.npy", np.array(pixels))
        numbers = [["ant", "bee", "cat"].index(file.parent.name) for file in files]
        np.save(tmp_path / f"n_{part}_targets.npy", np.array(numbers))
    words = ["--data.name", "npy", "--data.root", str(tmp_path)]
    found = evaluate(capsys, tmp_path / "run", *words)
    assert found["data"]["classes_by"] == "position"
    assert correct(found) == correct(evaluate(capsys, tmp_path / "run"))
    assert "they are taken for its classes in their order, 0 for 'ant'" in caplog.text
    numbers[-1] = 3
    np.save(tmp_path / "n_test_targets.npy", np.array(numbers))
    code, _, errors = run_command(capsys, "evaluate", tmp_path / "run", *words)
    assert code == 2
    assert "the label 3, and the model's 3 classes count from 0" in errors


def test_images_that_have_changed_are_said_not_to_be_the_runs_own(
    tmp_path: Path, capsys: Capture, caplog: pytest.LogCaptureFixture
) -> None:
    names = {label: f"digit {label}" for label in range(4)}
    root = tmp_path / "own"
    for part in ("train", "test"):
        write_folders(root, part, names)
    keys = ["--data.name", "folder", "--data.root", str(root), "--train.epochs", "1"]
    assert train_here(tmp_path / "run", *keys) == 0
    assert evaluate(capsys, tmp_path / "run")["own_images"] is True
    shutil.move(root, tmp_path / "moved")
    found = evaluate(capsys, tmp_path / "run", "--data.root", str(tmp_path / "moved"))
    assert (found["own_images"], found["equals_results_json"]) == (True, True)
    # Other training images: the test images are the run's own all the same.
    shutil.rmtree(tmp_path / "moved" / "train")
    found = evaluate(capsys, tmp_path / "run", "--data.root", str(tmp_path / "moved"))
    assert (found["own_images"], found["equals_results_json"]) == (True, True)
    for part in ("train", "test"):
        write_folders(root, part, names, turned_over=["digit 2"])
    for words in ([], ["--json"]):
        caplog.clear()
        code, output, _ = run_command(capsys, "evaluate", tmp_path / "run", *words)
        assert code == 0
        assert "have changed since the run" in caplog.text
        assert ("not the run's own test images" in output) == (not words)
    assert json.loads(output)["own_images"] is False


def test_a_run_without_folders_of_parts_is_tested_on_what_it_kept(
    tmp_path: Path, capsys: Capture
) -> None:
    root = write_folders(tmp_path / "own", "", {label: str(label) for label in range(4)})
    archive = pack(root, tmp_path / "own.zip")
    keys = ["--data.name", "folder", "--data.root", str(archive), "--train.epochs", "1"]
    assert train_here(tmp_path / "run", *keys) == 0
    found = evaluate(capsys, tmp_path / "run")
    assert (found["own_images"], found["equals_results_json"]) == (True, True)
    few = sum(row["support"] for row in found["test"]["per_class"])
    shutil.rmtree(root / "3")
    others = evaluate(capsys, tmp_path / "run", "--data.root", str(root))
    assert others["own_images"] is False
    count = len([*root.rglob("*.png")])
    assert sum(row["support"] for row in others["test"]["per_class"]) == count > 3 * few
